package bpf

import (
	"net/netip"
	"time"
)

// Elsewhere is a source that got the answer to a mail connection which did not come through the gateway: his packets have
// another way out, or somebody else borrows his address.
type Elsewhere struct {
	Addr  netip.Addr
	User  uint32 // 0: nobody in particular
	Count uint64 // of answers
	Last  time.Time
}

// Elsewhere gives the sources that were seen most recently, in no order.
func (d *Datapath) Elsewhere() ([]Elsewhere, error) {
	have, err := readTable[mailHostKey, mailElsewhere](d.objects.Elsewhere)
	if err != nil {
		return nil, err
	}
	out := make([]Elsewhere, 0, len(have))
	for k, v := range have {
		last, err := wallTime(v.LastNs)
		if err != nil {
			return nil, err
		}
		out = append(out, Elsewhere{Addr: k.prefix().Addr(), User: v.User, Count: v.Count, Last: last})
	}
	return out, nil
}
