package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"sluice/cmd/internal/api"
	"sluice/cmd/internal/store"
	"sluice/intercept/control"
)

// stage is one of the steps of a roll-out.
type stage struct {
	name    string
	mode    control.Mode
	percent int
}

// stages are the way of a roll-out.
var stages = []stage{
	{"off", control.Pass, 0}, {"observe", control.Observe, 0}, {"shadow", control.Shadow, 0},
	{"canary 1%", control.Canary, 1}, {"canary 5%", control.Canary, 5}, {"canary 25%", control.Canary, 25},
	{"enforce", control.Intercept, 0},
}

// neighbours returns the stages before and after what holds; nil where there is none. A canary of another share stands
// between two of them.
func neighbours(v verdict) (back, next *stage) {
	for i := range stages {
		s := &stages[i]
		switch {
		case s.mode < v.mode || s.mode == v.mode && s.percent < v.percent:
			back = s
		case next == nil && (s.mode > v.mode || s.percent > v.percent):
			next = s
		}
	}
	if v.mode > control.Intercept { // reject and drop are no stages
		return nil, nil
	}
	return back, next
}

// stageName is what holds as a stage, or as a mode where it is none.
func stageName(v verdict) string {
	switch v.mode {
	case control.Pass:
		return "off"
	case control.Intercept:
		return "enforce"
	case control.Canary:
		return fmt.Sprintf("canary %d%%", v.percent)
	}
	return v.mode.String()
}

// wholeWorld are the prefixes of target "all".
var wholeWorld = []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}

// target finds whom a step is about.
func (b backend) target(name string) (ps []netip.Prefix, err error) {
	if name == "all" {
		return wholeWorld, nil
	}
	if p, err := api.ParsePrefix(name); err == nil {
		return []netip.Prefix{p}, nil
	}
	m, err := b.find(name)
	if err != nil {
		return nil, &api.Problem{Status: http.StatusNotFound, Code: "no-such-target", What: fmt.Sprintf("%q is neither all, a prefix nor a user", name), Remedy: "`sluice rollout` lists prefixes, `sluice users` users"}
	}
	return m.Prefixes, nil
}

// standing is where a target stands; same is false where its prefixes differ.
func (b backend) standing(name string, ps []netip.Prefix) (t api.RolloutTarget, v verdict, same bool) {
	r := b.d.rules.Load()
	t, same = api.RolloutTarget{Target: name}, true
	for i, p := range ps {
		t.Prefixes = append(t.Prefixes, p.String())
		t.Inside += r.inside(p)
		w := r.of(p)
		if i == 0 {
			v = w
		}
		same = same && w.mode == v.mode && w.percent == v.percent
	}
	if t.Stage = "mixed"; !same {
		return t, v, same
	}
	t.Stage, t.Origin = stageName(v), b.holding(ps[0]).Origin
	back, next := neighbours(v)
	if back != nil {
		t.Back = back.name
	}
	if next != nil {
		t.Next = next.name
	}
	return t, v, same
}

// Rollout tells the stage of all sources, and of each prefix that has one of its own.
func (b backend) Rollout(context.Context) (*api.Rollout, error) {
	d := b.d
	ro := &api.Rollout{Fail: d.roster.Load().fail, Asked: d.failAsked()}
	all, _, _ := b.standing("all", wholeWorld)
	ro.Targets = append(ro.Targets, all)
	ps := make([]netip.Prefix, 0)
	for p := range d.rules.Load().prefixes() {
		if p.Bits() > 0 {
			ps = append(ps, p)
		}
	}
	slices.SortFunc(ps, comparePrefixes)
	for _, p := range ps {
		t, _, _ := b.standing(p.String(), []netip.Prefix{p})
		ro.Targets = append(ro.Targets, t)
	}
	return ro, nil
}

// RollOut makes one step.
func (b backend) RollOut(ctx context.Context, who string, req api.RolloutRequest) (*api.RolloutStep, error) {
	b.d.rolling.Lock() // or two operators together would make two steps
	defer b.d.rolling.Unlock()
	ps, err := b.target(req.Target)
	if err != nil {
		return nil, err
	}
	was, v, same := b.standing(req.Target, ps)
	if !same {
		return nil, refused("the prefixes of "+req.Target+" are in different stages", "move them one by one; `sluice rollout` lists them")
	}
	back, next := neighbours(v)
	to := next
	if req.Back {
		to = back
	}
	switch {
	case back == nil && next == nil:
		return nil, refused(fmt.Sprintf("%s is in mode %v, which is no stage of a roll-out", req.Target, v.mode), "set another mode first: `sluice mode set`")
	case to == nil && req.Back:
		return nil, refused(req.Target+" is off already", "")
	case to == nil:
		return nil, refused(req.Target+" is enforced already", "")
	}
	if err := b.goesOn(to.mode.String()); err != nil {
		return nil, err
	}
	step := &api.RolloutStep{From: was.Stage}
	if !req.Back && v.mode > control.Pass { // before observe nothing was seen that a gate could show
		if step.Gate, err = b.passGate(ctx, req, ps, to); err != nil {
			return nil, err
		}
	}
	if err := b.step(who, req, ps, to, step); err != nil {
		return nil, refusal(err)
	}
	step.RolloutTarget, _, _ = b.standing(req.Target, ps)
	return step, nil
}

func refused(what, remedy string) *api.Problem {
	return &api.Problem{Status: http.StatusConflict, Code: "refused", What: what, Remedy: remedy}
}

// passGate looks at what stands before a step, and refuses it where too much does.
func (b backend) passGate(ctx context.Context, req api.RolloutRequest, ps []netip.Prefix, to *stage) (*api.Gate, error) {
	var q api.GateQuery
	switch {
	case req.Target == "all":
	case len(ps) == 1:
		q.Prefix = ps[0]
	default:
		q.User = req.Target
	}
	g, err := b.d.gateFigures(ctx, q)
	if err != nil || g.Verdict != api.GateStop || req.Force {
		return g, err
	}
	var stops []string
	for _, l := range g.Lines {
		if l.Verdict == api.GateStop {
			stops = append(stops, l.Check+": "+l.Text)
		}
	}
	p := refused(fmt.Sprintf("the gate before %s says stop: %s", to.name, strings.Join(stops, "; ")), "`sluice gate` tells what to do about each; --force --reason WHY goes on all the same")
	p.Code = "gate"
	return nil, p
}

// enforces tells whether a stage treats anybody for real.
func (s *stage) enforces() bool { return s.mode >= control.Canary }

// failAsked tells whether somebody has decided what becomes of mail while the proxy is dead.
func (d *daemon) failAsked() bool {
	return d.cfg.Load().Intercept.FailSet || d.roster.Load().answered
}

// step brings the prefixes to a stage. At the first one that enforces, the answer about the proxy's death is due.
func (b backend) step(who string, req api.RolloutRequest, ps []netip.Prefix, to *stage, step *api.RolloutStep) error {
	d := b.d
	switch {
	case req.Fail != "" && d.cfg.Load().Intercept.FailSet:
		return refused("what becomes of mail while the proxy is dead stands in the configuration: intercept.default_fail", "change it there and reload")
	case to.enforces() && !req.Back && req.Fail == "" && !d.failAsked():
		p := refused("this is the first step to enforcement: what shall become of new connections while the proxy is dead?",
			"answer once: --fail open forwards them unfiltered after 1 s, 30 a minute for each source; --fail closed lets them wait up to 20 s, then resets them")
		p.Code = "fail-mode"
		return p
	}
	now, reason := time.Now().UTC(), req.Reason
	if reason == "" {
		reason = "roll-out"
	}
	var put []store.Rule
	for _, p := range ps {
		r := store.Rule{Prefix: p, Mode: to.mode.String(), Percent: to.percent, Reason: reason, By: who, Since: now}
		if err := d.rules.Load().ceiling.Check(sourceOf(&r)); err != nil {
			return err
		}
		put = append(put, r)
	}
	if req.Fail != "" {
		if err := b.answerFail(who, req.Fail); err != nil {
			return err
		}
	}
	what := "roll-out forward"
	if req.Back {
		what = "roll-out back"
	}
	detail := fmt.Sprintf("%s to %s: %s", step.From, to.name, reason)
	if step.Gate != nil {
		detail += "; the gate said " + step.Gate.Verdict
	}
	if req.Force {
		detail += ", forced"
	}
	d.log.Info(what, "target", req.Target, "from", step.From, "to", to.name, "by", who)
	return d.changeModes(put, nil, store.Act{At: now, Who: who, What: what, Subject: req.Target, Detail: detail})
}

// failFact is the name of the answer in the store.
const failFact = "fail"

// answerFail remembers what becomes of mail while the proxy is dead, for all who have no setting of their own, and puts it
// in force.
func (b backend) answerFail(who, fail string) error {
	d := b.d
	d.change.Lock()
	defer d.change.Unlock()
	was, err := d.store.Fact(failFact)
	if err != nil {
		return err
	}
	set := func(fail, by string) error {
		if err := d.store.SetFact(failFact, fail, store.Act{Who: by, What: "fail mode set", Subject: "default", Detail: fail}); err != nil {
			return err
		}
		return d.rosterAnew()
	}
	if err := set(fail, who); err != nil {
		return err
	}
	if d.o.socket != nil { // there is no helper
		return nil
	}
	if err := d.tellAll(); err != nil {
		return errors.Join(err, set(was, "sluiced"))
	}
	return nil
}

// rosterAnew reads the users again; the helper is not told. d.change is held.
func (d *daemon) rosterAnew() error {
	r, settings, err := newRoster(d.store, d.cfg.Load().Config)
	if err != nil {
		return err
	}
	d.policy.Configure(settings)
	d.roster.Store(r)
	d.sources.Replace(r.table)
	return nil
}
