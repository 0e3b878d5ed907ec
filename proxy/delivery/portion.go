package delivery

import (
	"slices"

	"sluice/proxy/smtp"
	"sluice/proxy/spool"
)

// A destination may take fewer recipients in one transaction than are due, by its word (RFC 9422 4.2) or by its 452 to those
// above (RFC 5321 4.5.3.1.10). The others go in further transactions of the same try. Who has the message by one of them is on disk
// before the next begins: after a kill nobody gets it twice by that.

// portion has the transaction be for no more recipients than the destination takes; 0: any number.
func (t *try) portion(most int) {
	if most > 0 && len(t.asked) > most {
		t.asked, t.rest = slices.Clone(t.asked[:most]), slices.Clone(t.asked[most:])
	}
}

// whole undoes portion.
func (t *try) whole() { t.asked, t.rest = append(t.asked, t.rest...), nil }

// further has the next transaction be for those whom the last one left over; false: it is the last. Where it took nobody, those it
// had no room for come with the next try.
func (t *try) further() bool {
	if !t.through {
		t.whole()
		return false
	}
	t.through = false
	took := slices.ContainsFunc(t.asked, func(i int) bool { return t.told[i].Fate != Deferred && t.told[i].Fate != Failed })
	var over []int
	for _, i := range t.asked {
		if o := &t.told[i]; took && o.Fate == Deferred && o.Reply.Code == 452 && o.Reply.Enh == (smtp.Enhanced{4, 5, 3}) {
			over = append(over, i)
		} else {
			t.done = append(t.done, i)
		}
	}
	t.asked, t.rest = append(over, t.rest...), nil
	return len(t.asked) > 0
}

// keep has it on disk whom the transactions so far have reached, with what is to be told of that in the end. A code of its own:
// why there can be no further one.
func (t *try) keep() spool.Reply {
	if t.q.ctx.Err() != nil { // the end of the try is written at once
		return ours(451, smtp.Enhanced{4, 3, 2}, "the gateway is restarting")
	}
	st := t.l.State
	st.Replies = slices.Clone(st.Replies)
	before := st.Left
	for _, i := range t.done {
		o := &t.told[i]
		if bit := uint64(1) << uint(i); (o.Fate == Delivered || o.Fate == Relayed) && st.Left&bit != 0 {
			r := o.Reply
			r.Rcpt, r.Taken, r.Relayed = i, true, o.Fate == Relayed
			st.Replies, st.Left = append(st.Replies, r), st.Left&^bit
		}
	}
	if st.Left == before {
		return spool.Reply{}
	}
	if err := t.l.Progress(st); err != nil {
		return ours(451, smtp.Enhanced{4, 3, 0}, err.Error())
	}
	return spool.Reply{}
}

// resume has the try include what keep wrote of one that was interrupted.
func (t *try) resume() {
	for _, r := range t.l.State.Replies {
		if !r.Taken || r.Rcpt < 0 || r.Rcpt >= len(t.told) || t.l.Open(r.Rcpt) {
			continue
		}
		o := &t.told[r.Rcpt]
		o.Fate, o.Behind = Delivered, true
		if r.Relayed {
			o.Fate = Relayed
		}
		r.Taken, r.Relayed = false, false
		o.Reply = r
		t.done = append(t.done, r.Rcpt)
	}
}

// gather makes all transactions of the try one.
func (t *try) gather() {
	t.asked, t.done = append(t.done, t.asked...), nil
	slices.Sort(t.asked)
}
