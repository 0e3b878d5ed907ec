package delivery

import (
	"slices"

	"sluice/proxy/smtp"
)

// A destination may take fewer recipients in one transaction than are due, by its word (RFC 9422 4.2) or by its 452 to those
// above (RFC 5321 4.5.3.1.10). The others go in further transactions of the same try.

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

// gather makes all transactions of the try one.
func (t *try) gather() {
	t.asked, t.done = append(t.done, t.asked...), nil
	slices.Sort(t.asked)
}
