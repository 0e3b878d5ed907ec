package nft

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"sluice/intercept/ruleset"
)

// The chains of whoever watches. `observe` sees both directions of mail that mode observe forwards.
const (
	watchChain = "observe"
	queueChain = "observe_queue"
)

// watchText are the rules that send to the queue: every SYN, FIN and RST, and the first words that a side says before the
// other side speaks, see spent. None needs conntrack. Whoever reads the queue says so again and again, see Watching:
// packets do not wait for one who is stopped. The sets hold what a gateway's mail can say in the time that an element
// lasts; where they are full more is read, not less.
const watchText = `add table inet TABLE
add chain inet TABLE observe_queue
add chain inet TABLE observe
flush chain inet TABLE observe
add set inet TABLE observing { type inet_proto; flags timeout; }
add set inet TABLE words4 { type ipv4_addr . inet_service . ipv4_addr . inet_service . mark; flags dynamic, timeout; timeout 10s; size 262144; }
add set inet TABLE words6 { type ipv6_addr . inet_service . ipv6_addr . inet_service . mark; flags dynamic, timeout; timeout 10s; size 262144; }
add set inet TABLE bytes4 { type ipv4_addr . inet_service . ipv4_addr . inet_service . mark; flags dynamic, timeout; timeout 10s; size 262144; }
add set inet TABLE bytes6 { type ipv6_addr . inet_service . ipv6_addr . inet_service . mark; flags dynamic, timeout; timeout 10s; size 262144; }
add chain inet TABLE observe_words4
add chain inet TABLE observe_words6
flush chain inet TABLE observe_words4
flush chain inet TABLE observe_words6
table inet TABLE {
	chain observe {
		meta l4proto != @observing return
		tcp flags & (syn | fin | rst) != 0x0 goto observe_queue
		tcp flags & psh == 0x0 meta length < 100 return
		meta nfproto vmap { ipv4 : goto observe_words4, ipv6 : goto observe_words6 }
	}
}
`

// thenQueue is what remains where no budget is spent.
const thenQueue = `add rule inet TABLE observe_words4 goto observe_queue
add rule inet TABLE observe_words6 goto observe_queue
`

// Watch has the kernel send the beginnings of what both sides of observed flows say to a queue: so many packets of
// one side before the other speaks, and then so many bytes in small ones. A queue that nobody reads, or that is full, lets
// them go on.
func Watch(queue uint16, packets, bytes int) error {
	stands, err := Stands()
	if err != nil {
		return err
	}
	if !stands {
		return errors.New("could not watch by nftables: the table of sluice-intercept is not there; is it running, with path nftables?")
	}
	t, err := findTool()
	if err != nil {
		return err
	}
	if err := t.run(strings.ReplaceAll(watchText, "TABLE", ruleset.FilterTable)); err != nil {
		return err
	}
	b := newBatch()
	b.spent("observe_words4", false, packets, bytes)
	b.spent("observe_words6", true, packets, bytes)
	if err := b.commit(); err != nil {
		return err
	}
	if err := t.run(strings.ReplaceAll(thenQueue, "TABLE", ruleset.FilterTable)); err != nil {
		return err
	}
	// The expression first, which newer nft shows as it is; then the target of iptables, which kernels without it have.
	native := t.run(fmt.Sprintf("flush chain inet %[1]s %[2]s\nadd rule inet %[1]s %[2]s queue flags bypass to %[3]d\n", ruleset.FilterTable, queueChain, queue))
	if native == nil {
		return nil
	}
	if err := queueByTarget(queue); err != nil {
		return fmt.Errorf("could not send packets to queue %d: %w; and %w; the kernel needs NFT_QUEUE, or NFT_COMPAT and NETFILTER_XT_TARGET_NFQUEUE", queue, native, err)
	}
	return nil
}

// Watching says that somebody reads the queue, for so long.
func Watching(d time.Duration) error {
	now := time.Now()
	b := newBatch()
	b.flush("observing")
	b.add("observing", []element{{key: tcp, until: now.Add(d)}}, now)
	return b.commit()
}

// Watched tells whether the rules stand: the table may have been made anew.
func Watched() (bool, error) {
	rules := 0
	for _, chain := range []string{watchChain, queueChain} {
		err := query(unix.NFT_MSG_GETRULE, func(b *batch) {
			b.attribute(unix.NFTA_RULE_TABLE, ruleset.FilterTable+"\x00")
			b.attribute(unix.NFTA_RULE_CHAIN, chain+"\x00")
		}, func(attrs) { rules++ })
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return false, fmt.Errorf("could not read the rules that watch: %w", err)
		}
	}
	return rules > 1, nil
}

// Unwatch takes the rules away; where the table is gone, so are they.
func Unwatch() error {
	stands, err := Stands()
	if err != nil || !stands {
		return err
	}
	t, err := findTool()
	if err != nil {
		return err
	}
	name := ruleset.FilterTable
	return t.run(fmt.Sprintf(`add chain inet %[1]s %[2]s
flush chain inet %[1]s %[2]s
`, name, watchChain))
}

// numbers of linux/netfilter/nf_tables_compat.h and xt_NFQUEUE.h
const (
	targetName = 1 // NFTA_TARGET_NAME
	targetRev  = 2 // NFTA_TARGET_REV
	targetInfo = 3 // NFTA_TARGET_INFO
	xtQueueRev = 3
	xtBypass   = 1 // NFQ_FLAG_BYPASS
)

// queueByTarget makes the rule of the queue by the target NFQUEUE of iptables.
func queueByTarget(queue uint16) error {
	info := make([]byte, 8) // queue, queues, flags; padded as xtables aligns
	binary.NativeEndian.PutUint16(info, queue)
	binary.NativeEndian.PutUint16(info[2:], 1)
	binary.NativeEndian.PutUint16(info[4:], xtBypass)
	b := newBatch()
	start := b.message(nftMessage(unix.NFT_MSG_DELRULE), 0, unix.NFPROTO_INET, "empty chain "+queueChain)
	b.attribute(unix.NFTA_RULE_TABLE, ruleset.FilterTable+"\x00")
	b.attribute(unix.NFTA_RULE_CHAIN, queueChain+"\x00")
	b.end(start)
	start = b.message(nftMessage(unix.NFT_MSG_NEWRULE), unix.NLM_F_CREATE|unix.NLM_F_APPEND, unix.NFPROTO_INET, "add the target NFQUEUE")
	b.attribute(unix.NFTA_RULE_TABLE, ruleset.FilterTable+"\x00")
	b.attribute(unix.NFTA_RULE_CHAIN, queueChain+"\x00")
	list := b.open(unix.NFTA_RULE_EXPRESSIONS | nested)
	b.expression("target", func() {
		b.attribute(targetName, "NFQUEUE\x00")
		b.number32(targetRev, xtQueueRev)
		b.attribute(targetInfo, string(info))
	})
	b.shut(list)
	b.end(start)
	return b.commit()
}
