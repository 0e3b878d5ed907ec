package store

import (
	"database/sql"
	"errors"
	"fmt"
)

// migrations bring the schema from one version to the next; the database's user_version counts those applied. What has
// been released is never changed, only added to.
var migrations = []string{
	`CREATE TABLE ids (next INTEGER NOT NULL) STRICT;
	INSERT INTO ids (next) VALUES (1);
	CREATE TABLE users (
		id      INTEGER PRIMARY KEY,
		name    TEXT NOT NULL UNIQUE,
		origin  TEXT NOT NULL CHECK (origin IN ('config', 'command', 'template')),
		contact TEXT NOT NULL DEFAULT '',
		created INTEGER NOT NULL,
		removed INTEGER NOT NULL DEFAULT 0
	) STRICT;
	CREATE TABLE prefixes (
		prefix TEXT PRIMARY KEY,
		user   INTEGER NOT NULL REFERENCES users (id)
	) STRICT, WITHOUT ROWID;
	CREATE INDEX prefixes_user ON prefixes (user);
	CREATE TABLE overrides (
		user     INTEGER PRIMARY KEY,
		settings TEXT NOT NULL,
		changed  INTEGER NOT NULL
	) STRICT;
	CREATE TABLE locks (
		ticket TEXT PRIMARY KEY,
		user   INTEGER NOT NULL,
		since  INTEGER NOT NULL,
		ended  INTEGER NOT NULL DEFAULT 0,
		lock   TEXT NOT NULL
	) STRICT, WITHOUT ROWID;
	CREATE INDEX locks_active ON locks (user) WHERE ended = 0;
	CREATE INDEX locks_user ON locks (user, since);
	CREATE INDEX locks_since ON locks (since);
	CREATE TABLE unlocks (
		user INTEGER PRIMARY KEY,
		n    INTEGER NOT NULL
	) STRICT;
	CREATE TABLE audit (
		id      INTEGER PRIMARY KEY AUTOINCREMENT,
		at      INTEGER NOT NULL,
		who     TEXT NOT NULL,
		what    TEXT NOT NULL,
		subject TEXT NOT NULL,
		detail  TEXT NOT NULL
	) STRICT;`,
	`CREATE TABLE modes (
		prefix  TEXT PRIMARY KEY,
		mode    TEXT NOT NULL,
		percent INTEGER NOT NULL,
		reason  TEXT NOT NULL,
		by      TEXT NOT NULL,
		since   INTEGER NOT NULL,
		until   INTEGER NOT NULL
	) STRICT, WITHOUT ROWID;
	CREATE TABLE exemptions (
		prefix TEXT NOT NULL,
		port   INTEGER NOT NULL,
		mode   TEXT NOT NULL,
		reason TEXT NOT NULL,
		by     TEXT NOT NULL,
		since  INTEGER NOT NULL,
		until  INTEGER NOT NULL,
		PRIMARY KEY (prefix, port)
	) STRICT, WITHOUT ROWID;
	CREATE TABLE facts (
		name  TEXT PRIMARY KEY,
		value TEXT NOT NULL
	) STRICT, WITHOUT ROWID;`,
	`CREATE TABLE logins (
		name         TEXT PRIMARY KEY,
		user         INTEGER NOT NULL REFERENCES users (id),
		hash         TEXT NOT NULL,
		own          TEXT NOT NULL,
		own_implicit INTEGER NOT NULL,
		created      INTEGER NOT NULL,
		changed      INTEGER NOT NULL
	) STRICT, WITHOUT ROWID;
	CREATE INDEX logins_user ON logins (user);`,
	`CREATE TABLE starttls (
		prefix TEXT NOT NULL,
		port   INTEGER NOT NULL,
		mode   TEXT NOT NULL,
		reason TEXT NOT NULL,
		by     TEXT NOT NULL,
		since  INTEGER NOT NULL,
		until  INTEGER NOT NULL,
		PRIMARY KEY (prefix, port)
	) STRICT, WITHOUT ROWID;
	CREATE TABLE refusals (
		source TEXT NOT NULL,
		target TEXT NOT NULL,
		entry  TEXT NOT NULL,
		PRIMARY KEY (source, target)
	) STRICT, WITHOUT ROWID;`,
	`CREATE TABLE identities (
		user       INTEGER NOT NULL,
		name       TEXT NOT NULL,
		first      INTEGER NOT NULL,
		last       INTEGER NOT NULL,
		messages   INTEGER NOT NULL,
		recipients INTEGER NOT NULL,
		refused    INTEGER NOT NULL,
		bad        INTEGER NOT NULL,
		code       TEXT NOT NULL,
		reset      INTEGER NOT NULL,
		PRIMARY KEY (user, name)
	) STRICT, WITHOUT ROWID;`,
	`CREATE TABLE digests (
		hash  TEXT PRIMARY KEY,
		why   TEXT NOT NULL,
		by    TEXT NOT NULL,
		since INTEGER NOT NULL,
		until INTEGER NOT NULL
	) STRICT, WITHOUT ROWID;`,
	`CREATE TABLE unlocks_of (
		user     INTEGER NOT NULL,
		identity TEXT NOT NULL DEFAULT '',
		n        INTEGER NOT NULL,
		PRIMARY KEY (user, identity)
	) STRICT, WITHOUT ROWID;
	INSERT INTO unlocks_of (user, n) SELECT user, n FROM unlocks;
	DROP TABLE unlocks;
	ALTER TABLE unlocks_of RENAME TO unlocks;`,
	`CREATE TABLE groups (
		id       INTEGER PRIMARY KEY,
		kind     TEXT NOT NULL CHECK (kind IN ('account', 'plan', 'network')),
		name     TEXT NOT NULL,
		parent   INTEGER NOT NULL,
		plan     INTEGER NOT NULL,
		settings TEXT NOT NULL,
		budget   TEXT NOT NULL,
		UNIQUE (kind, name)
	) STRICT;
	CREATE TABLE members (
		user    INTEGER PRIMARY KEY,
		account INTEGER NOT NULL
	) STRICT;
	CREATE INDEX members_account ON members (account);
	CREATE TABLE lifts (
		user     INTEGER PRIMARY KEY,
		settings TEXT NOT NULL,
		until    INTEGER NOT NULL,
		reason   TEXT NOT NULL,
		by       TEXT NOT NULL
	) STRICT;`,
	`CREATE TABLE held (
		id        TEXT PRIMARY KEY,
		at        INTEGER NOT NULL,
		user      INTEGER NOT NULL,
		user_name TEXT NOT NULL,
		print     TEXT NOT NULL,
		grp       INTEGER NOT NULL,
		entry     TEXT NOT NULL
	) STRICT, WITHOUT ROWID;
	CREATE INDEX held_print ON held (print);
	CREATE INDEX held_at ON held (at);`,
	`CREATE TABLE addresses (
		id        INTEGER PRIMARY KEY AUTOINCREMENT,
		recipient INTEGER NOT NULL,
		block     INTEGER NOT NULL,
		pattern   TEXT NOT NULL,
		scope     INTEGER NOT NULL,
		of        INTEGER NOT NULL,
		skips     TEXT NOT NULL,
		reason    TEXT NOT NULL,
		by        TEXT NOT NULL,
		since     INTEGER NOT NULL,
		until     INTEGER NOT NULL,
		UNIQUE (recipient, pattern, scope, of)
	) STRICT;`,
	`CREATE TABLE tokens (
		id      TEXT PRIMARY KEY,
		name    TEXT NOT NULL,
		hash    TEXT NOT NULL,
		scopes  TEXT NOT NULL,
		by      TEXT NOT NULL,
		created INTEGER NOT NULL,
		until   INTEGER NOT NULL,
		used    INTEGER NOT NULL,
		revoked INTEGER NOT NULL
	) STRICT, WITHOUT ROWID;
	CREATE TABLE searches (
		name  TEXT PRIMARY KEY,
		query TEXT NOT NULL,
		by    TEXT NOT NULL,
		since INTEGER NOT NULL
	) STRICT, WITHOUT ROWID;
	ALTER TABLE groups ADD COLUMN most INTEGER NOT NULL DEFAULT 0;`,
	// A prefix that is taken and given back within a minute, as all of the configuration's are when it is read, changed no
	// hands.
	`CREATE TABLE holdings (
		id     INTEGER PRIMARY KEY AUTOINCREMENT,
		prefix TEXT NOT NULL,
		user   INTEGER NOT NULL,
		holder TEXT NOT NULL,
		since  INTEGER NOT NULL,
		until  INTEGER NOT NULL,
		by     TEXT NOT NULL
	) STRICT;
	CREATE INDEX holdings_prefix ON holdings (prefix, until);
	INSERT INTO holdings (prefix, user, holder, since, until, by)
		SELECT p.prefix, p.user, '', u.created, 0, '' FROM prefixes p JOIN users u ON u.id = p.user;
	CREATE TRIGGER prefix_taken AFTER INSERT ON prefixes BEGIN
		UPDATE holdings SET until = 0 WHERE prefix = new.prefix AND user = new.user AND by = ''
			AND until > CAST((unixepoch('subsec') - 60) * 1000000 AS INTEGER);
		INSERT INTO holdings (prefix, user, holder, since, until, by)
			SELECT new.prefix, new.user, '', CAST(unixepoch('subsec') * 1000000 AS INTEGER), 0, ''
			WHERE NOT EXISTS (SELECT 1 FROM holdings WHERE prefix = new.prefix AND user = new.user AND by = '' AND until = 0);
	END;
	CREATE TRIGGER prefix_given_back AFTER DELETE ON prefixes BEGIN
		UPDATE holdings SET until = CAST(unixepoch('subsec') * 1000000 AS INTEGER)
			WHERE prefix = old.prefix AND user = old.user AND by = '' AND until = 0;
	END;`,
	`ALTER TABLE groups ADD COLUMN contact TEXT NOT NULL DEFAULT '';
	CREATE TABLE notices (
		ticket TEXT PRIMARY KEY,
		at     INTEGER NOT NULL,
		told   INTEGER NOT NULL
	) STRICT, WITHOUT ROWID;
	CREATE TABLE calls (
		hook  TEXT NOT NULL,
		id    TEXT NOT NULL,
		kind  TEXT NOT NULL,
		body  TEXT NOT NULL,
		made  INTEGER NOT NULL,
		next  INTEGER NOT NULL,
		tries INTEGER NOT NULL,
		error TEXT NOT NULL,
		PRIMARY KEY (hook, id)
	) STRICT, WITHOUT ROWID;
	CREATE INDEX calls_hook ON calls (hook, next);
	CREATE TABLE link_unlocks (
		user      INTEGER NOT NULL,
		identity  TEXT NOT NULL,
		n         INTEGER NOT NULL,
		last      INTEGER NOT NULL,
		withdrawn TEXT NOT NULL,
		PRIMARY KEY (user, identity)
	) STRICT, WITHOUT ROWID;
	CREATE TABLE appeals (
		id      TEXT PRIMARY KEY,
		at      INTEGER NOT NULL,
		message TEXT NOT NULL UNIQUE,
		user    INTEGER NOT NULL,
		state   TEXT NOT NULL,
		appeal  TEXT NOT NULL
	) STRICT, WITHOUT ROWID;
	CREATE INDEX appeals_at ON appeals (at);
	CREATE INDEX appeals_open ON appeals (user) WHERE state = 'open';
	CREATE TABLE verdicts (
		day     TEXT PRIMARY KEY,
		stopped INTEGER NOT NULL,
		wrong   INTEGER NOT NULL
	) STRICT, WITHOUT ROWID;`,
	`CREATE TABLE samples (
		id        TEXT PRIMARY KEY,
		at        INTEGER NOT NULL,
		user      INTEGER NOT NULL,
		user_name TEXT NOT NULL,
		print     TEXT NOT NULL,
		grp       INTEGER NOT NULL,
		entry     TEXT NOT NULL
	) STRICT, WITHOUT ROWID;
	CREATE INDEX samples_user ON samples (user_name);
	CREATE INDEX samples_at ON samples (at);
	CREATE TABLE bundles (
		ticket TEXT PRIMARY KEY,
		at     INTEGER NOT NULL,
		flows  TEXT NOT NULL
	) STRICT, WITHOUT ROWID;`,
	`CREATE INDEX audit_subject ON audit (subject);`,
}

// migrate applies the migrations that are missing, all or none.
func migrate(db *sql.DB) error {
	tx, err := db.Begin()
	if err != nil {
		return err
	}
	if err := migrateIn(tx); err != nil {
		return errors.Join(err, tx.Rollback())
	}
	return tx.Commit()
}

func migrateIn(tx *sql.Tx) error {
	var version int
	if err := tx.QueryRow("PRAGMA user_version").Scan(&version); err != nil {
		return err
	}
	if version > len(migrations) {
		return fmt.Errorf("its schema is version %d and this program knows %d: a newer sluiced wrote it; run that or restore a backup",
			version, len(migrations))
	}
	for ; version < len(migrations); version++ {
		if _, err := tx.Exec(migrations[version]); err != nil {
			return fmt.Errorf("could not bring the schema to version %d: %w", version+1, err)
		}
	}
	_, err := tx.Exec(fmt.Sprintf("PRAGMA user_version = %d", version))
	return err
}

// SchemaVersion is the version of the database that this program writes.
func SchemaVersion() int { return len(migrations) }
