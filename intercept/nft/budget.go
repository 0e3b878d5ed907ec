package nft

import (
	"encoding/binary"

	"golang.org/x/sys/unix"

	"sluice/intercept/ruleset"
)

// numbers of linux/netfilter/nf_tables.h
const (
	dynsetName     = 1 // NFTA_DYNSET_SET_NAME
	dynsetOp       = 3
	dynsetKey      = 4
	dynsetExpr     = 7
	dynsetUpdate   = 1 // NFT_DYNSET_OP_UPDATE
	limitRate      = 1 // NFTA_LIMIT_RATE
	limitUnit      = 2
	limitBurst     = 3
	limitType      = 4
	limitFlags     = 5
	quotaBytes     = 1 // NFTA_QUOTA_BYTES
	quotaFlags     = 2
	over           = 1 // NFT_LIMIT_F_INV, NFT_QUOTA_F_INV
	perPackets     = 0 // NFT_LIMIT_PKTS
	register       = 8 // NFT_REG32_00
	networkHeader  = 1 // NFT_PAYLOAD_NETWORK_HEADER
	tcpHeader      = 2 // NFT_PAYLOAD_TRANSPORT_HEADER
	immediateTo    = 1 // NFTA_IMMEDIATE_DREG; the register 0 is the verdict
	immediateWhat  = 2
	verdictReturn  = 0xfffffffb // NFT_RETURN, -5
	secondsPerDay  = 24 * 60 * 60
	addressLength4 = 4
	addressLength6 = 16
)

// spent appends to chain the rule that lets packets of a side go on unread once it has spent both budgets of its turn: some
// packets however large, then so many bytes. A turn is named by ports, addresses and the acknowledgement number, which
// moves when the other side has spoken. So nothing needs to be taken out of the sets when a turn ends: what is taken out
// of such a set of the kernel lingers in its chains for up to a second, and after some turns within it nothing more finds
// room. Packets for whose turn there is no room are read. The command nft has no type for that number.
func (b *batch) spent(chain string, v6 bool, packets, bytes int) {
	words, more, source, target, length := "words4", "bytes4", uint32(12), uint32(16), uint32(addressLength4)
	if v6 {
		words, more, source, target, length = "words6", "bytes6", 8, 24, addressLength6
	}
	start := b.message(nftMessage(unix.NFT_MSG_NEWRULE), unix.NLM_F_CREATE|unix.NLM_F_APPEND, unix.NFPROTO_INET, "bound what is read in "+chain)
	b.attribute(unix.NFTA_RULE_TABLE, ruleset.FilterTable+"\x00")
	b.attribute(unix.NFTA_RULE_CHAIN, chain+"\x00")
	list := b.open(unix.NFTA_RULE_EXPRESSIONS | nested)
	to := uint32(register)
	for _, f := range []struct{ header, offset, length uint32 }{
		{networkHeader, source, length}, {tcpHeader, 0, 2}, {networkHeader, target, length}, {tcpHeader, 2, 2}, {tcpHeader, 8, 4},
	} {
		b.expression("payload", func() {
			b.number32(unix.NFTA_PAYLOAD_DREG, to)
			b.number32(unix.NFTA_PAYLOAD_BASE, f.header)
			b.number32(unix.NFTA_PAYLOAD_OFFSET, f.offset)
			b.number32(unix.NFTA_PAYLOAD_LEN, f.length)
		})
		to += (f.length + 3) / 4
	}
	b.update(words, "limit", func() {
		b.number64(limitRate, 1)
		b.number64(limitUnit, secondsPerDay)
		b.number32(limitBurst, uint32(packets))
		b.number32(limitType, perPackets)
		b.number32(limitFlags, over)
	})
	b.update(more, "quota", func() {
		b.number64(quotaBytes, uint64(bytes))
		b.number32(quotaFlags, over)
	})
	b.expression("immediate", func() {
		b.number32(immediateTo, 0)
		what := b.open(immediateWhat | nested)
		verdict := b.open(dataVerdict | nested)
		b.number32(verdictCode, verdictReturn)
		b.shut(verdict)
		b.shut(what)
	})
	b.shut(list)
	b.end(start)
}

// update has the element of a turn in a set, made where there is none, ask an expression.
func (b *batch) update(set, name string, body func()) {
	b.expression("dynset", func() {
		b.attribute(dynsetName, set+"\x00")
		b.number32(dynsetOp, dynsetUpdate)
		b.number32(dynsetKey, register)
		expr := b.open(dynsetExpr | nested)
		b.named(name, body)
		b.shut(expr)
	})
}

func (b *batch) expression(name string, body func()) {
	item := b.open(unix.NFTA_LIST_ELEM | nested)
	b.named(name, body)
	b.shut(item)
}

func (b *batch) named(name string, body func()) {
	b.attribute(unix.NFTA_EXPR_NAME, name+"\x00")
	data := b.open(unix.NFTA_EXPR_DATA | nested)
	body()
	b.shut(data)
}

func (b *batch) number64(kind uint16, n uint64) {
	b.attribute(kind, string(binary.BigEndian.AppendUint64(nil, n)))
}
