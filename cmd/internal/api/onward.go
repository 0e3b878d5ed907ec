package api

import (
	"context"
	"net/http"
	"net/netip"
	"time"
)

// Onward tells how the leg to destinations is protected. Who is the operator's account.
type Onward interface {
	TLSPolicy(ctx context.Context, domain string) (*TLSPolicy, error)
	Broken(ctx context.Context) ([]BrokenTLS, error)
	TryTLS(ctx context.Context, who string, target netip.AddrPort) (*BrokenTLS, error)
}

// TLSPolicy is what a domain publishes about mail to it, and what the gateway makes of it.
type TLSPolicy struct {
	Domain    string    `json:"domain"`
	MXSecure  bool      `json:"mx_secure" doc:"DNSSEC vouches for the list of exchangers"`
	NullMX    bool      `json:"null_mx,omitempty" doc:"it takes no mail (RFC 7505)"`
	MTASTS    *MTASTS   `json:"mta_sts,omitempty" doc:"its MTA-STS policy in force"`
	STSError  string    `json:"mta_sts_error,omitempty" doc:"why there is none though one is announced, or not the newest"`
	Hosts     []TLSHost `json:"hosts" doc:"mail exchangers, by preference"`
	Rule      string    `json:"rule,omitempty" doc:"the gateway's own rule for the domain, which is enforced"`
	Validator string    `json:"validator,omitempty" doc:"why no TLSA record can be used at all"`
}

// MTASTS is an MTA-STS policy.
type MTASTS struct {
	ID      string    `json:"id"`
	Mode    string    `json:"mode" doc:"enforce, testing or none"`
	MX      []string  `json:"mx"`
	Fetched time.Time `json:"fetched"`
	Until   time.Time `json:"until"`
}

// TLSHost is one mail exchanger.
type TLSHost struct {
	Host      string       `json:"host"`
	Addresses []netip.Addr `json:"addresses,omitempty"`
	Secure    bool         `json:"secure" doc:"DNSSEC vouches for its addresses"`
	Level     string       `json:"level,omitempty" doc:"opportunistic, required, verified or dane"`
	Source    string       `json:"source,omitempty" doc:"who asks for it: default, dane or mta-sts"`
	Names     []string     `json:"names,omitempty" doc:"of which the certificate must bear one"`
	TLSA      []string     `json:"tlsa,omitempty" doc:"usable records, their data shortened"`
	Testing   string       `json:"testing,omitempty" doc:"what MTA-STS in testing mode asks for"`
	Barred    string       `json:"barred,omitempty" doc:"why no mail may go there, whatever it shows"`
	Why       string       `json:"why,omitempty"`
	Error     string       `json:"error,omitempty" doc:"why it could not be found out: mail from the spool would wait"`
}

// BrokenTLS is a destination that offers STARTTLS and with which the handshake fails.
type BrokenTLS struct {
	Target   netip.AddrPort `json:"target"`
	Since    time.Time      `json:"since"`
	Last     time.Time      `json:"last"`
	Again    time.Time      `json:"again" doc:"when it is tried again; until then mail that may goes there in plain text"`
	Failures int            `json:"failures" doc:"in a row"`
	Why      string         `json:"why"`
}

// OnwardTLS are figures of the leg to destinations since start.
type OnwardTLS struct {
	Encrypted uint64 `json:"encrypted" doc:"connections"`
	Plain     uint64 `json:"plain" doc:"connections to destinations that offer nothing else"`
	Avoided   uint64 `json:"avoided" doc:"connections in plain text because the handshake fails"`
	Unmet     uint64 `json:"unmet" doc:"connections not used, since they were not what a setting requires"`
	Broken    int    `json:"broken" doc:"destinations whose handshake fails now"`
	DANE      Met    `json:"dane" doc:"messages to domains with TLSA records"`
	Enforced  Met    `json:"mta_sts_enforce" doc:"messages to domains whose MTA-STS policy is enforced"`
	Testing   Met    `json:"mta_sts_testing" doc:"messages to domains whose MTA-STS policy is in testing"`
}

// Met counts messages by whether the connection was what the domain asks for. Nothing is refused for it.
type Met struct {
	OK     uint64 `json:"ok"`
	Failed uint64 `json:"failed"`
}

func (s *Server) tryTLS(r *http.Request) (any, error) {
	t, err := netip.ParseAddrPort(r.PathValue("target"))
	if err != nil {
		return nil, invalid(r.PathValue("target")+" is not an address with a port", "write it like 192.0.2.25:25 or [2001:db8::25]:25")
	}
	return s.back.TryTLS(r.Context(), who(r.Context()), t)
}
