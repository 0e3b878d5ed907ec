package store

import (
	"database/sql"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// schemaOf lists what a database consists of.
func schemaOf(t *testing.T, db *sql.DB) (all []string) {
	t.Helper()
	rows, err := db.Query(`SELECT type, name, coalesce(sql, '') FROM sqlite_master ORDER BY type, name`)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var kind, name, text string
		if err := rows.Scan(&kind, &name, &text); err != nil {
			t.Fatal(err)
		}
		all = append(all, kind+" "+name+" "+strings.Join(strings.Fields(text), " "))
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return all
}

// TestEveryVersionComesForward: a database of whatever earlier version becomes what a new one is, and keeps what it holds.
func TestEveryVersionComesForward(t *testing.T) {
	t.Parallel()
	inMemory := func() *sql.DB {
		db, err := sql.Open("sqlite", ":memory:")
		if err != nil {
			t.Fatal(err)
		}
		db.SetMaxOpenConns(1) // another connection would be another database
		t.Cleanup(func() { db.Close() })
		return db
	}
	fresh := inMemory()
	if err := migrate(fresh); err != nil {
		t.Fatal(err)
	}
	want := schemaOf(t, fresh)
	for version := 1; version < len(migrations); version++ {
		db := inMemory()
		for _, text := range append(slices.Clone(migrations[:version]), fmt.Sprintf("PRAGMA user_version = %d", version),
			`INSERT INTO users (id, name, origin, created) VALUES (7, 'alice', 'command', 1)`,
			`INSERT INTO audit (at, who, what, subject, detail) VALUES (1, 'root', 'user added', 'alice', '')`) {
			if _, err := db.Exec(text); err != nil {
				t.Fatalf("version %d: %v", version, err)
			}
		}
		if err := migrate(db); err != nil {
			t.Fatalf("version %d: %v", version, err)
		}
		if got := schemaOf(t, db); !slices.Equal(got, want) {
			t.Errorf("from version %d the schema is\n%s\nwant\n%s", version, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
		s := &Store{read: db, write: db}
		if users, err := s.Users(); err != nil || len(users) != 1 || users[0].ID != 7 || users[0].Name != "alice" {
			t.Errorf("from version %d: %+v %v", version, users, err)
		}
		if acts, err := s.ActsOn(5, "alice", "bob"); err != nil || len(acts) != 1 || acts[0].Who != "root" {
			t.Errorf("from version %d: %+v %v", version, acts, err)
		}
	}
}
