package rules

import (
	"bytes"
	"strings"

	"sluice/filter/content/view"
)

// names looks at whom a message claims to be from.
func (c *checker) names() {
	v := c.v
	domain := v.From.Addr[strings.LastIndexByte(v.From.Addr, '@')+1:]
	name := strings.ToLower(v.From.Name[:min(len(v.From.Name), 120)])
	b := known.named(name)
	if b == nil {
		if like := replaced(name); like != name {
			b = known.named(like)
		}
	}
	if b != nil && domain != "" && !b.owns(domain) {
		c.fire(&phishName, "name "+v.From.Name+", address "+v.From.Addr)
	}
	if i := strings.IndexByte(name, '@'); i > 0 && domain != "" {
		shown := name[i+1:]
		if end := strings.IndexAny(shown, " ,;)>\"'"); end >= 0 {
			shown = shown[:end]
		}
		if strings.Contains(shown, ".") && registered(shown) != registered(domain) {
			c.fire(&phishAddr, "name "+v.From.Name+", address "+v.From.Addr)
		}
	}
	if v.Shape.Passwords > 0 {
		c.fire(&phishForm, "the HTML has a field for a password")
	}
}

// outgoing looks at what matters on the way out of a network: misused web forms, answers that go elsewhere.
func (c *checker) outgoing() {
	v := c.v
	from, reply := v.From.Addr, v.ReplyTo.Addr
	if reply != "" && reply != from {
		fd, rd := from[strings.LastIndexByte(from, '@')+1:], reply[strings.LastIndexByte(reply, '@')+1:]
		if view.Freemail(rd) && !view.Freemail(fd) {
			c.fire(&outReply, "from "+from+", answers to "+reply)
		}
	}
	script := v.Field("x-php-originating-script") != nil || v.Field("x-php-script") != nil
	if strings.Contains(v.From.Name, "://") || strings.Contains(strings.ToLower(v.From.Name), "www.") || script && bytes.Contains(v.Subject, []byte("://")) {
		c.fire(&outForm, "name "+v.From.Name+", subject "+string(v.Subject))
	}
	if len(v.Hidden) > 1500 && len(v.Hidden) > len(v.Text)/2 {
		c.fire(&outHidden, string(v.Hidden[:80])+"…")
	}
	if v.Cut != 0 {
		c.fire(&outCut, v.Cut.String())
	}
}
