package api

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"time"
)

// UserSettings tells and changes what users inherit and what they have of their own. Who is the operator's account.
type UserSettings interface {
	SettingKeys(ctx context.Context) ([]SettingKey, error)
	Explained(ctx context.Context, user string) (*Explained, error)
	ChangeSettings(ctx context.Context, who string, c SettingsChange) (*Explained, error)
	ExportSettings(ctx context.Context) ([]SettingRow, error)
	ImportSettings(ctx context.Context, who string, r SettingsImport) (*SettingsPlan, error)
	Acts(ctx context.Context, limit int) ([]Act, error)
	// Backup calls begin once there is something to write.
	Backup(ctx context.Context, who string, begin func(name string) io.Writer) error
}

// SettingKey is one setting that a user may have.
type SettingKey struct {
	Key     string `json:"key"`
	Default string `json:"default" doc:"what users have of whom nothing else is said"`
}

// Explained are the effective settings of a user, each with the place that says so.
type Explained struct {
	User     string    `json:"user"`
	Account  string    `json:"account,omitempty"`
	Budgets  []string  `json:"budgets,omitempty" doc:"what he shares, the narrowest first"`
	Settings []Setting `json:"settings"`
	Until    time.Time `json:"until,omitzero" doc:"when what holds for a time ends"`
}

// Setting is one effective setting.
type Setting struct {
	Key   string `json:"key"`
	Value string `json:"value"`
	From  string `json:"from" doc:"default, plan or account with its name, configuration, run time, or for a time"`
	Would string `json:"would,omitempty" doc:"what would hold without what holds for a time"`
}

// SettingsChange changes what a user does not inherit.
type SettingsChange struct {
	User   string            `json:"user"`
	Set    map[string]string `json:"set,omitempty"`
	Unset  []string          `json:"unset,omitempty" doc:"settings that are inherited again"`
	Until  *time.Time        `json:"until,omitempty" doc:"the change holds until then, above all else"`
	Reason string            `json:"reason,omitempty"`
}

// SettingRow is one setting of one user, as tables hold it.
type SettingRow struct {
	User  string `json:"user"`
	Key   string `json:"key"`
	Value string `json:"value"`
}

// SettingsImport has users have exactly the settings of the rows of their own.
type SettingsImport struct {
	Rows    []SettingRow `json:"rows"`
	Replace bool         `json:"replace,omitempty" doc:"users who are not in the rows inherit everything"`
	Plan    bool         `json:"plan,omitempty" doc:"change nothing, say what would change"`
	Reason  string       `json:"reason,omitempty"`
}

// SettingsPlan is what an import changes, or would.
type SettingsPlan struct {
	Users   int             `json:"users" doc:"whom it hits"`
	Changes []SettingChange `json:"changes" doc:"of what users have of their own; the first 10,000"`
	Done    bool            `json:"done"`
}

// SettingChange is one change of one user.
type SettingChange struct {
	User string `json:"user"`
	Key  string `json:"key"`
	Old  string `json:"old,omitempty" doc:"left out: it was inherited"`
	New  string `json:"new,omitempty" doc:"left out: it is inherited"`
}

// Act is one line of the audit log.
type Act struct {
	At      time.Time `json:"at"`
	Who     string    `json:"who"`
	What    string    `json:"what"`
	Subject string    `json:"subject"`
	Detail  string    `json:"detail"`
}

// maxSettings bounds the body of an import: 100,000 users with five settings each.
const maxSettings = 64 << 20

func (s *Server) settingRoutes() []route {
	return []route{
		{method: "GET", path: "/v1/settings/keys", summary: "all settings that a user may have of his own", out: []SettingKey{},
			serve: func(r *http.Request) (any, error) { return s.back.SettingKeys(r.Context()) }},
		{method: "GET", path: "/v1/settings", summary: "a user's effective settings, each with the place that says so", out: Explained{},
			query: []param{{"user", "name of a user, or an address whose user is meant"}},
			serve: func(r *http.Request) (any, error) { return s.back.Explained(r.Context(), r.URL.Query().Get("user")) }},
		{method: "POST", path: "/v1/settings", summary: "change what a user does not inherit, for good or for a time", in: SettingsChange{}, out: Explained{}, serve: s.changeSettings},
		{method: "GET", path: "/v1/settings/export", summary: "what users have of their own", out: []SettingRow{},
			serve: func(r *http.Request) (any, error) { return s.back.ExportSettings(r.Context()) }},
		{method: "POST", path: "/v1/settings/import", summary: "have users have exactly these settings of their own, or say what would change", in: SettingsImport{}, out: SettingsPlan{},
			limit: maxSettings, serve: func(r *http.Request) (any, error) {
				var i SettingsImport
				if err := body(r, &i); err != nil {
					return nil, err
				}
				return s.back.ImportSettings(r.Context(), who(r.Context()), i)
			}},
		{method: "GET", path: "/v1/audit", summary: "what was done by hand, the newest first", out: []Act{}, query: []param{{"limit", "100 unless told"}},
			serve: func(r *http.Request) (any, error) {
				limit, err := number(r.URL.Query(), "limit", 100)
				if err != nil {
					return nil, err
				}
				return s.back.Acts(r.Context(), limit)
			}},
		{method: "GET", path: "/v1/backup", summary: "what makes the gateway the one it is, as a compressed tar archive with private keys: for root on the unix socket alone", raw: s.backup},
	}
}

// backup hands out what root may read on the disk, and nobody else: private keys are among it.
func (s *Server) backup(w http.ResponseWriter, r *http.Request) error {
	if trusted, _ := r.Context().Value(trustedKey{}).(bool); !trusted || r.Header.Get("Authorization") != "" {
		return &Problem{Status: http.StatusForbidden, Code: "not-root", What: "a backup has the private keys of the gateway", Remedy: "become root on the gateway; no token is enough"}
	}
	return s.back.Backup(r.Context(), who(r.Context()), func(name string) io.Writer {
		w.Header().Set("Content-Type", "application/gzip")
		w.Header().Set("Content-Disposition", fmt.Sprintf("attachment; filename=%q", name))
		return w
	})
}

func (s *Server) changeSettings(r *http.Request) (any, error) {
	var c SettingsChange
	if err := body(r, &c); err != nil {
		return nil, err
	}
	switch {
	case c.User == "":
		return nil, invalid("nobody is named", `send {"user": "alice", "set": {"messages_per_day": "5000"}}`)
	case len(c.Set)+len(c.Unset) == 0:
		return nil, invalid("nothing is to change", "name settings in set or unset; GET /v1/settings/keys lists all")
	case c.Until != nil && !c.Until.After(s.Now()):
		return nil, invalid("until is over already", "give a moment to come")
	case c.Until != nil && c.Until.After(s.Now().AddDate(1, 0, 0)):
		return nil, invalid("until is more than a year away", "change it for good, without until")
	}
	return s.back.ChangeSettings(r.Context(), who(r.Context()), c)
}
