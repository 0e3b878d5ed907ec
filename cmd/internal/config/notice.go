package config

import (
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// Public are the pages for customers.
type Public struct {
	Listen  []netip.AddrPort `toml:"listen" doc:"Addresses of this host at which the pages are served. sluice-intercept opens them."`
	URL     string           `toml:"url" doc:"Where customers find them, such as https://mail.provider.example. Refusals and notices link there; refusals only where gateway.help_url is left out."`
	TLS     bool             `toml:"tls" default:"true" doc:"The pages are encrypted with the gateway's certificate. false: a web server of yours stands before them and encrypts."`
	Proxies []Prefix         `toml:"proxies" doc:"Addresses of that web server: its X-Forwarded-For tells who asks."`
}

// Notice are notices of locks by mail.
type Notice struct {
	Contacts  bool     `toml:"contacts" default:"true" doc:"One mail for each lock goes to the contact of the user, else of his account, else to the desk."`
	Desk      string   `toml:"desk" doc:"Mailbox of those who look after locks and appeals. Left out: what nobody else is told of stands in the log alone."`
	From      string   `toml:"from" doc:"Mailbox in the From field. Left out: postmaster at gateway.name. Mail itself has the null sender (RFC 3834)."`
	Language  string   `toml:"language" default:"en" doc:"Language of notices to those whose users have none of their own: en, de, fr, or one of templates."`
	Templates string   `toml:"templates" doc:"Folder of texts that stand in the place of the shipped ones, or add languages: locked.LANGUAGE.txt and appeal.LANGUAGE.txt, of Go's text/template. The first line is \"Subject: …\", then an empty one."`
	LinkTime  Duration `toml:"link_time" default:"72h" min:"5m" max:"7d" doc:"How long the link to unlock in a notice holds."`
}

// Webhook is one server that hears of events.
type Webhook struct {
	Name       string   `toml:"name" required:"true" doc:"Name of it in log and status."`
	URL        string   `toml:"url" required:"true" doc:"Where events are POSTed as JSON: https, or http on this host."`
	SecretFile string   `toml:"secret_file" required:"true" doc:"File with the secret, of at least 16 bytes, that signs them: webhook-signature is \"v1,\" and the base64 of the HMAC-SHA256 of webhook-id, webhook-timestamp and the body with dots between them."`
	Events     []string `toml:"events" doc:"Which of lock, unlock, alarm, brake and appeal it hears. Left out: all. An alarm is of a sender of bad mail whom nothing locks, a key that cannot be read, or a plug-in that does not answer, or does again. What it does not answer with 2xx is told again for three days."`
}

// Events are what webhooks may hear of.
var Events = []string{"lock", "unlock", "alarm", "brake", "appeal"}

func (v *validator) public(c *Config) {
	p := &c.Public
	u, err := url.Parse(p.URL)
	switch {
	case p.URL == "" && len(p.Listen) > 0:
		v.report("public.url", "is missing", "say where customers find the pages, like \"https://mail.provider.example\"")
	case p.URL != "" && (err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != ""):
		v.report("public.url", strconv.Quote(p.URL)+" is not the address of a web site without a path", `write it like "https://mail.provider.example"`)
	case p.URL != "" && len(p.Listen) == 0:
		v.report("public.listen", "is missing", "say where the pages are served, like [\"192.0.2.1:443\"], or remove url")
	}
	v.oneLine("public.url", p.URL)
	for i, l := range p.Listen {
		switch a := l.Addr(); {
		case a.IsUnspecified(), a.IsMulticast(), a.Zone() != "", l.Port() == 0:
			v.report("public.listen", l.String()+" is not a port of one address of this host", `write it like "192.0.2.1:443"`)
		case slices.Contains(p.Listen[:i], l), slices.Contains(c.TLS.ACME.Listen, l), slices.ContainsFunc(c.Smarthost.Listener, func(o Listener) bool { return o.Address == l }):
			v.report("public.listen", l.String()+" is listened at already", "choose another port or address; the pages and tls.acme cannot share one")
		}
	}
	if n := len(c.Smarthost.Listener) + len(c.TLS.ACME.Listen) + len(p.Listen); len(p.Listen) > 0 && n > mostListeners {
		v.report("public.listen", fmt.Sprintf("%d listeners are more than %d, those of the smarthost and tls.acme included", n, mostListeners), "remove some")
	}
	if p.TLS && len(p.Proxies) > 0 {
		v.report("public.proxies", "a web server before the pages encrypts by itself", "write tls = false, or remove proxies")
	}
}

func (v *validator) notices(c *Config) {
	for key, a := range map[string]string{"notice.desk": c.Notice.Desk, "notice.from": c.Notice.From} {
		if a != "" && !Mailbox(a) {
			v.report(key, strconv.Quote(a)+" is not a mailbox", `write it like "abuse@provider.example"`)
		}
	}
	v.oneLine("gateway.brand", strings.Map(func(r rune) rune { return min(r, '~') }, c.Gateway.Brand)) // any letters, but one line
	seen := map[string]bool{}
	for i := range c.Webhook {
		w := &c.Webhook[i]
		key := fmt.Sprintf("webhook[%d].", i)
		v.label(key+"name", w.Name, seen)
		u, err := url.Parse(w.URL)
		if w.URL != "" && (err != nil || u.Host == "" || u.User != nil || u.Scheme != "https" && (u.Scheme != "http" || !here(u.Hostname()))) {
			v.report(key+"url", strconv.Quote(w.URL)+" is neither an https address nor http on this host", `write it like "https://panel.provider.example/hooks/mail"`)
		}
		for _, e := range w.Events {
			if !slices.Contains(Events, e) {
				v.report(key+"events", strconv.Quote(e)+" is no event", "known are "+strings.Join(Events, ", "))
			}
		}
	}
}

func here(host string) bool {
	a, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && a.IsLoopback()
}
