package policy

import (
	"fmt"
	"slices"
)

// GroupKind says what a group of users is.
type GroupKind uint8

// The kinds.
const (
	Account GroupKind = iota // a customer; accounts stand inside accounts
	Plan                     // what a customer pays for
	Network                  // everybody
)

var groupKinds = []string{"account", "plan", "network"}

// String returns the kind's name.
func (k GroupKind) String() string {
	if int(k) >= len(groupKinds) {
		return "?"
	}
	return groupKinds[k]
}

// ParseGroupKind reads a kind's name.
func ParseGroupKind(name string) (GroupKind, error) {
	if i := slices.Index(groupKinds, name); i >= 0 {
		return GroupKind(i), nil
	}
	return 0, fmt.Errorf("%q is no kind of group; use account, plan or network", name)
}

// Group is an account, a plan, or the network: what its users inherit, and what they may send together (LIM7).
type Group struct {
	ID       uint32
	Kind     GroupKind
	Name     string
	Parent   uint32 // of an account: the account around it; 0 for none
	Plan     uint32 // of an account; 0 for none
	Most     int    // of a plan: how many users an account may have; 0: any number
	Contact  string // mailbox of who answers for an account whose users have no contact of their own
	Settings Overrides
	Budget   LimitChanges
}

// Validate reports what makes no sense of a group by itself.
func (g *Group) Validate() error {
	switch {
	case g.Most < 0:
		return fmt.Errorf("%d is no number of users; give 0 for any number", g.Most)
	case g.Most > 0 && g.Kind != Plan:
		return fmt.Errorf("how many users an account may have is said by its plan, not by the %s", g.Kind)
	}
	if err := g.Settings.Validate(); err != nil {
		return err
	}
	for name := range g.Budget {
		if name == InvalidShare.String() || name == InvalidHour.String() || name == FailedHour.String() || name == QueuedMessages.String() {
			return fmt.Errorf("%s is of users, not of what they share; set it as a setting of the %s", name, g.Kind)
		}
	}
	return g.Budget.Validate()
}

// mostAccounts bounds how deep accounts stand inside each other.
const mostAccounts = 16

// groups are all groups with their members.
type groups struct {
	byID    map[uint32]*Group
	members map[uint32]uint32
	chains  map[uint32]*Budgets // by account; that of 0 is the network's
}

func newGroups(all []Group, members map[uint32]uint32) groups {
	g := groups{byID: map[uint32]*Group{}, members: members, chains: map[uint32]*Budgets{}}
	var network *Group
	for i := range all {
		if all[i].Kind == Network {
			network = &all[i]
			continue
		}
		g.byID[all[i].ID] = &all[i]
	}
	g.chain(0, network)
	for id, one := range g.byID {
		if one.Kind == Account {
			g.chain(id, network)
		}
	}
	return g
}

// chain makes the budgets that members of an account share, the narrowest first.
func (g *groups) chain(account uint32, network *Group) {
	var all Budgets
	up := g.upward(account)
	add := func(one *Group, scope Scope) {
		if one != nil && len(one.Budget) > 0 {
			all = append(all, &Budget{Scope: scope, ID: one.ID, Name: one.Name, Limits: one.Budget.Limits()})
		}
	}
	for _, one := range up {
		add(one, OfAccount)
	}
	add(g.plan(up), OfPlan)
	add(network, OfNetwork)
	if len(all) > 0 {
		g.chains[account] = &all
	}
}

// contact is that of the innermost account of a user that has one.
func (g *groups) contact(user uint32) string {
	for _, one := range g.upward(g.members[user]) {
		if one.Contact != "" {
			return one.Contact
		}
	}
	return ""
}

// upward returns an account and those around it.
func (g *groups) upward(account uint32) (up []*Group) {
	for account != 0 && len(up) < mostAccounts {
		one := g.byID[account]
		if one == nil || one.Kind != Account {
			break
		}
		up = append(up, one)
		account = one.Parent
	}
	return up
}

// plan is that of the innermost account that has one.
func (g *groups) plan(up []*Group) *Group {
	for _, one := range up {
		if p := g.byID[one.Plan]; p != nil && p.Kind == Plan {
			return p
		}
	}
	return nil
}

// of returns the groups whose settings a user inherits, the widest first.
func (g *groups) of(user uint32) []*Group {
	account := g.members[user]
	if account == 0 {
		return nil
	}
	up := g.upward(account)
	var all []*Group
	if p := g.plan(up); p != nil {
		all = append(all, p)
	}
	slices.Reverse(up)
	return append(all, up...)
}

// budgets are those that a user shares, nil for none.
func (g *groups) budgets(user uint32) *Budgets { return g.chains[g.members[user]] }

// Accounts are the ids of a user's account and of those around it, the narrowest first.
type Accounts []uint32

func (g *groups) accounts(user uint32) *Accounts {
	var all Accounts
	for _, a := range g.upward(g.members[user]) {
		all = append(all, a.ID)
	}
	if all == nil {
		return nil
	}
	return &all
}
