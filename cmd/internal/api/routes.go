package api

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

//go:generate go test -run TestOpenAPI -update

//go:embed openapi.json
var openAPI []byte

// route is one request that the API answers; the OpenAPI description is made from the same table.
type route struct {
	method, path string
	summary      string
	query        []param
	in, out      any // zero values of the bodies' types
	stream       bool
	limit        int64                              // bytes of the request's body; 1 MiB unless told
	serve        func(r *http.Request) (any, error) // nil where raw answers
	raw          func(w http.ResponseWriter, r *http.Request) error
}

type param struct{ name, doc string }

func (s *Server) routes() []route {
	user := param{"user", "name of a user, or an address whose user is meant"}
	return append(slices.Concat(s.suggestRoutes(), s.senderRoutes(), s.accountLockRoutes(), s.appealRoutes(), s.modelRoutes(), s.reportRoutes(), s.loginRoutes(), s.queueRoutes(), s.poolRoutes(), s.identityRoutes(), s.settingRoutes(), s.groupRoutes(), s.addressRoutes(), s.campaignRoutes(), s.conductRoutes(), s.quarantineRoutes(), s.tokenRoutes(), s.holderRoutes(), s.searchRoutes(), s.storyRoutes(), s.dkimRoutes()), []route{
		{method: "GET", path: "/v1/status", summary: "the gateway at a glance", out: Status{},
			serve: func(r *http.Request) (any, error) { return s.back.Status(r.Context()) }},
		{method: "GET", path: "/v1/counters", summary: "figures since start", out: Counters{},
			serve: func(r *http.Request) (any, error) { return s.back.Counters(r.Context()) }},
		{method: "GET", path: "/v1/doctor", summary: "what the daemon finds when it checks itself", out: []Finding{},
			serve: func(r *http.Request) (any, error) { return s.back.Doctor(r.Context()) }},
		{method: "GET", path: "/v1/users", summary: "all users", out: []User{},
			serve: func(r *http.Request) (any, error) { return s.back.Users.Users(r.Context()) }},
		{method: "POST", path: "/v1/users", summary: "add a user", in: NewUser{}, out: User{}, serve: s.addUser},
		{method: "POST", path: "/v1/import", summary: "have users added by command hold the prefixes of a list: lines of prefix,user or prefix,user,mode", out: Imported{},
			query: []param{{"replace", "1: remove those who are not in the list"}, {"reason", "why"}}, limit: maxImport, serve: s.importUsers},
		{method: "GET", path: "/v1/users/{name...}", summary: "one user with what holds for him", out: UserDetail{},
			serve: func(r *http.Request) (any, error) { return s.back.User(r.Context(), r.PathValue("name")) }},
		{method: "DELETE", path: "/v1/users/{name...}", summary: "remove a user that was added by command", out: User{},
			serve: func(r *http.Request) (any, error) {
				return s.back.RemoveUser(r.Context(), who(r.Context()), r.PathValue("name"))
			}},
		{method: "GET", path: "/v1/modes", summary: "modes by source prefix, of the configuration and made at run time", out: []Mode{},
			serve: func(r *http.Request) (any, error) { return s.back.Modes(r.Context()) }},
		{method: "GET", path: "/v1/modes/{prefix...}", summary: "the mode that holds for a source address or prefix, and what says so", out: Mode{}, serve: s.holding},
		{method: "POST", path: "/v1/modes", summary: "make a rule for a source prefix", in: ModeRequest{}, out: Mode{}, serve: s.setMode},
		{method: "DELETE", path: "/v1/modes/{prefix...}", summary: "remove a rule that was made at run time; answers what holds now", out: Mode{}, serve: s.removeMode,
			query: []param{{"reason", "why"}}},
		{method: "GET", path: "/v1/exemptions", summary: "exempted destinations, of the configuration and made at run time", out: []Exemption{},
			serve: func(r *http.Request) (any, error) { return s.back.Exemptions(r.Context()) }},
		{method: "POST", path: "/v1/exemptions", summary: "exempt a destination", in: ExemptRequest{}, out: Exemption{}, serve: s.exempt},
		{method: "DELETE", path: "/v1/exemptions/{prefix...}", summary: "remove an exemption that was made at run time", out: Exemption{}, serve: s.removeExemption,
			query: []param{{"port", "of the exemption; left out: that for every mail port"}, {"reason", "why"}}},
		{method: "GET", path: "/v1/rollout", summary: "the stages of the roll-out", out: Rollout{},
			serve: func(r *http.Request) (any, error) { return s.back.Rollout(r.Context()) }},
		{method: "POST", path: "/v1/rollout", summary: "go one step forward or back", in: RolloutRequest{}, out: RolloutStep{}, serve: s.rollOut},
		{method: "GET", path: "/v1/flows", summary: "connections open now", query: []param{{"user", "name of a user"}}, out: []Flow{}, serve: s.flows},
		{method: "GET", path: "/v1/locks", summary: "locks in force, or their history", out: []Lock{}, serve: s.locks,
			query: []param{user, {"history", "1: also those that ended, newest first"}, {"limit", "of the history, 100 unless told"}}},
		{method: "POST", path: "/v1/lock", summary: "lock a user", in: LockRequest{}, out: Lock{}, serve: s.lock},
		{method: "POST", path: "/v1/unlock", summary: "lift a user's lock", in: UnlockRequest{}, out: Lock{}, serve: s.unlock},
		{method: "GET", path: "/v1/log", summary: "the message log, newest first; with follow=1 new lines as they come, one JSON object a line",
			query: append(logParams, param{"follow", "1: go on with new lines"}), out: []Message{}, stream: true, raw: s.log},
		{method: "GET", path: "/v1/gate", summary: "what stands before the next step of the roll-out", query: gateParams, out: Gate{}, serve: s.gate},
		{method: "GET", path: "/v1/observed", summary: "what enforcement would have done with what sluice-observe saw, by user", out: ObserveReport{},
			serve: func(r *http.Request) (any, error) { return s.back.Observed(r.Context()) }},
		{method: "GET", path: "/v1/starttls", summary: "what becomes of clients' STARTTLS: by default, of users, and towards destinations", out: []TLSRule{},
			serve: func(r *http.Request) (any, error) { return s.back.TLSRules(r.Context()) }},
		{method: "POST", path: "/v1/starttls", summary: "say what becomes of STARTTLS of a user, or towards destinations", in: TLSRequest{}, out: TLSRule{}, serve: s.setTLS},
		{method: "DELETE", path: "/v1/starttls", summary: "take back what was said at run time; answers what it was", out: TLSRule{}, serve: s.removeTLS,
			query: []param{user, {"prefix", "of destinations"}, {"port", "of the rule; left out: that for every mail port"}, {"reason", "why"}}},
		{method: "GET", path: "/v1/authority", summary: "who certifies the names that clients ask for", out: Authority{},
			serve: func(r *http.Request) (any, error) { return s.back.Authority(r.Context()) }},
		{method: "GET", path: "/v1/refusals", summary: "clients that refuse the gateway's certificate, and whose mail passes unread for that", out: []Refusal{},
			serve: func(r *http.Request) (any, error) { return s.back.ListRefusals(r.Context()) }},
		{method: "POST", path: "/v1/refusals", summary: "let STARTTLS of a source to a destination pass unread, bounded", in: RefusalRequest{}, out: Refusal{}, serve: s.allowRefusal},
		{method: "DELETE", path: "/v1/refusals", summary: "forget a refusal and what was allowed for it", out: Refusal{}, serve: s.forgetRefusal,
			query: []param{{"source", "address"}, {"target", "destination's address, with a port where that is not 25"}, {"reason", "why"}}},
		{method: "GET", path: "/v1/tls/policy/{domain}", summary: "what a domain asks of those who send it mail, by DANE and MTA-STS", out: TLSPolicy{},
			serve: func(r *http.Request) (any, error) { return s.back.TLSPolicy(r.Context(), r.PathValue("domain")) }},
		{method: "GET", path: "/v1/tls/broken", summary: "destinations whose TLS handshake fails", out: []BrokenTLS{},
			serve: func(r *http.Request) (any, error) { return s.back.Broken(r.Context()) }},
		{method: "DELETE", path: "/v1/tls/broken/{target}", summary: "try TLS again with the next connection to a destination", out: BrokenTLS{}, serve: s.tryTLS},
		{method: "GET", path: "/v1/openapi.json", summary: "this description", raw: func(w http.ResponseWriter, _ *http.Request) error {
			w.Header().Set("Content-Type", "application/json")
			_, err := w.Write(openAPI)
			return err
		}},
	}...)
}

var logParams = []param{
	{"user", "name of a user"}, {"status", "delivered, refused, deferred, ambiguous, lost, no-message or observed"},
	{"since", "RFC 3339 time, or a time span before now like 2h or 3d"}, {"until", "likewise"}, {"id", "of a message or a flow"}, {"ticket", "of a lock"}, {"campaign", "only copies of one message"}, {"identity", "the finer sender inside the user"},
	{"from", "sender's address or domain"}, {"to", "a recipient's address or domain"}, {"client", "source prefix or address"}, {"target", "the destination's address"}, {"code", "public code of what decided"},
	{"where", "a member of the line with =, !=, ~ (contains), <, <=, >, >= and a value, like size>1000000; may stand several times"},
	{"limit", "100 unless told"},
}

func (r route) handler(log *slog.Logger) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if err := r.unknown(req.URL.Query()); err != nil {
			tell(w, err)
			return
		}
		if r.raw != nil {
			if err := r.raw(w, req); err != nil {
				tell(w, err)
			}
			return
		}
		v, err := r.serve(req)
		if err != nil {
			if _, expected := err.(*Problem); !expected {
				log.Warn("could not answer a request of the API", "route", r.method+" "+r.path, "err", err)
			}
			tell(w, err)
			return
		}
		write(w, http.StatusOK, v)
	})
}

// unknown refuses parameters that the route does not know: a misspelt filter must not select everything.
func (r route) unknown(q url.Values) error {
	for name := range q {
		known := false
		names := make([]string, len(r.query))
		for i, p := range r.query {
			names[i] = p.name
			known = known || p.name == name
		}
		if !known {
			return invalid(fmt.Sprintf("there is no parameter %q", name), "known here: "+strings.Join(names, ", "))
		}
	}
	return nil
}

func invalid(what, remedy string) *Problem {
	return &Problem{Status: http.StatusBadRequest, Code: "invalid", What: what, Remedy: remedy}
}

// body reads the request's JSON strictly.
func body(r *http.Request, v any) error {
	d := json.NewDecoder(r.Body)
	d.DisallowUnknownFields()
	err := d.Decode(v)
	if err == nil {
		_, err = d.Token()
		if err == io.EOF {
			return nil
		}
	}
	return invalid(fmt.Sprintf("could not read the request's body: %v", err), "send one JSON object as /v1/openapi.json describes it")
}

func (s *Server) addUser(r *http.Request) (any, error) {
	var u NewUser
	if err := body(r, &u); err != nil {
		return nil, err
	}
	if u.Name == "" || len(u.Prefixes) == 0 {
		return nil, invalid("a user needs a name and at least one prefix", `send {"name": "alice", "prefixes": ["192.0.2.0/29"]}`)
	}
	return s.back.AddUser(r.Context(), who(r.Context()), u)
}

func (s *Server) flows(r *http.Request) (any, error) {
	user, all := r.URL.Query().Get("user"), s.back.Flows.Flows()
	some := make([]Flow, 0, len(all))
	for _, f := range all {
		if user == "" || f.User == user {
			some = append(some, f)
		}
	}
	return some, nil
}

func (s *Server) locks(r *http.Request) (any, error) {
	q := r.URL.Query()
	limit, err := number(q, "limit", 100)
	if err != nil {
		return nil, err
	}
	if q.Get("history") == "1" {
		return s.back.History(r.Context(), q.Get("user"), limit)
	}
	all, err := s.back.Locks.Locks(r.Context())
	if err != nil {
		return nil, err
	}
	some := make([]Lock, 0, len(all))
	for _, l := range all {
		if u := q.Get("user"); u == "" || l.User == u {
			some = append(some, l)
		}
	}
	return some, nil
}

func (s *Server) lock(r *http.Request) (any, error) {
	var l LockRequest
	if err := body(r, &l); err != nil {
		return nil, err
	}
	switch {
	case l.User == "":
		return nil, invalid("nobody to lock", `name a user: {"user": "alice", "seconds": 3600, "reason": "…"}`)
	case l.Reason == "":
		return nil, invalid("a lock by hand needs a reason", `say why: {"user": "alice", "seconds": 3600, "reason": "…"}`)
	case l.Seconds < 0 || l.Seconds > 7*24*3600:
		return nil, invalid(fmt.Sprintf("%d seconds is no time for a lock", l.Seconds), "give at most a week, or 0 for a lock until somebody unlocks")
	}
	return s.back.Lock(r.Context(), who(r.Context()), l)
}

func (s *Server) unlock(r *http.Request) (any, error) {
	var u UnlockRequest
	if err := body(r, &u); err != nil {
		return nil, err
	}
	if u.User == "" {
		return nil, invalid("nobody to unlock", `name a user: {"user": "alice"}`)
	}
	return s.back.Unlock(r.Context(), who(r.Context()), u)
}

func (s *Server) log(w http.ResponseWriter, r *http.Request) error {
	q, err := query(r.URL.Query())
	if err != nil {
		return err
	}
	if r.URL.Query().Get("follow") != "1" {
		ms, err := s.back.Find(r.Context(), q)
		if err != nil {
			return err
		}
		if ms == nil {
			ms = []*Message{}
		}
		write(w, http.StatusOK, ms)
		return nil
	}
	w.Header().Set("Content-Type", "application/jsonl")
	w.WriteHeader(http.StatusOK)
	flush := http.NewResponseController(w)
	if err := flush.Flush(); err != nil {
		return nil
	}
	enc := json.NewEncoder(w)
	err = s.back.Tail(r.Context(), q, func(m *Message) error {
		if err := enc.Encode(m); err != nil {
			return err
		}
		return flush.Flush()
	})
	if err != nil && r.Context().Err() == nil {
		// The status is sent already: the last line says why the stream ends.
		_ = enc.Encode(struct {
			Error *Problem `json:"error"`
		}{&Problem{Code: "failed", What: err.Error()}})
	}
	return nil
}

var statuses = []string{"delivered", "refused", "deferred", "ambiguous", "lost", "no-message", "observed", "withheld", "queued", "quarantined", "discarded"}

// query reads the parameters of the log.
func query(v url.Values) (q Query, err error) {
	q = Query{User: v.Get("user"), Status: v.Get("status"), ID: v.Get("id"), Ticket: v.Get("ticket"), Campaign: v.Get("campaign"), Identity: v.Get("identity"), From: v.Get("from"), To: v.Get("to"), Code: v.Get("code")}
	if q.Status != "" && !slices.Contains(statuses, q.Status) {
		return q, invalid(fmt.Sprintf("%q is not a status", q.Status), "use one of "+strings.Join(statuses, ", "))
	}
	for name, t := range map[string]*time.Time{"since": &q.Since, "until": &q.Until} {
		if s := v.Get(name); s != "" {
			if *t, err = moment(s, time.Now()); err != nil {
				return q, invalid(fmt.Sprintf("%s=%q is not a time", name, s), "write it like 2027-01-31T12:00:00Z, or as a span before now like 2h or 3d")
			}
		}
	}
	if c := v.Get("client"); c != "" {
		if q.Client, err = ParsePrefix(c); err != nil {
			return q, err
		}
	}
	if t := v.Get("target"); t != "" {
		if q.Target, err = netip.ParseAddr(t); err != nil {
			return q, invalid(fmt.Sprintf("target=%q is not an address", t), "write it like 198.51.100.25")
		}
	}
	for _, text := range v["where"] {
		if _, err := ParseWhere(text); err != nil {
			return q, err
		}
	}
	q.Where = v["where"]
	q.Limit, err = number(v, "limit", 100)
	return q, err
}

// moment reads a time, or a time span before now.
func moment(s string, now time.Time) (time.Time, error) {
	if days, ok := strings.CutSuffix(s, "d"); ok {
		n, err := strconv.Atoi(days)
		if err != nil || n < 0 || n > 36500 {
			return now, fmt.Errorf("%q is no number of days", days)
		}
		return now.AddDate(0, 0, -n), nil
	}
	if d, err := time.ParseDuration(s); err == nil {
		return now.Add(-d), nil
	}
	return time.Parse(time.RFC3339, s)
}

func number(v url.Values, name string, unless int) (int, error) {
	s := v.Get(name)
	if s == "" {
		return unless, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 || n > 100_000 {
		return 0, invalid(fmt.Sprintf("%s=%q is not a number from 1 to 100000", name, s), "correct it")
	}
	return n, nil
}

// ParsePrefix reads a prefix, or a single address as the prefix that holds it alone.
func ParsePrefix(s string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(s); err == nil && a.Zone() == "" {
		return netip.PrefixFrom(a.Unmap(), a.Unmap().BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return p, invalid(fmt.Sprintf("%q is neither a prefix nor an address", s), `write it like "192.0.2.0/29", "2001:db8:1::/64" or "192.0.2.7"`)
	}
	if p.Addr().Is4In6() {
		return p, invalid(fmt.Sprintf("%q is IPv4 written as IPv6", s), "write it as IPv4")
	}
	if p != p.Masked() {
		return p, invalid(fmt.Sprintf("%q has bits set behind its length", s), fmt.Sprintf("write %s or the single address %s", p.Masked(), p.Addr()))
	}
	return p, nil
}
