//go:build labtest

package lab

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// complaintAbout is a report by RFC 5965 about a message as a destination got it.
func complaintAbout(kind string, n string, message []byte) []byte {
	return []byte("From: feedback@provider.example\r\nTo: abuse@gw.example\r\nSubject: complaint " + n + "\r\nMIME-Version: 1.0\r\n" +
		"Content-Type: multipart/report; report-type=feedback-report; boundary=\"p\"\r\n\r\n--p\r\nContent-Type: text/plain\r\n\r\nA user complained.\r\n" +
		"--p\r\nContent-Type: message/feedback-report\r\n\r\nFeedback-Type: " + kind + "\r\nUser-Agent: Loop/1\r\nVersion: 1\r\n\r\n--p\r\nContent-Type: message/rfc822\r\n\r\n" +
		string(message) + "\r\n--p--\r\n")
}

type reportOut struct {
	Kind, Reporter, Message, User, Learnt string
	Counted, Again                        bool
}

// TestReportsAndTraps: a complaint that comes by command or is dropped into the folder is counted against who sent the
// message, who is locked by three, and is learnt; a forged one, and what is none, do nothing; a message to a trap is refused,
// learnt, and locks. What comes back to whom it went is a loop (DEL11).
func TestReportsAndTraps(t *testing.T) {
	t.Parallel()
	ctx, l := testContext(t), ForTest(t, Options{})
	dir := filepath.Join(l.Dir(), "reports")
	if err := os.MkdirAll(filepath.Join(dir, "new"), 0o777); err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{dir, filepath.Join(dir, "new")} { // sluiced has no privileges
		if err := os.Chmod(d, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	g := startGatewayWith(t, l, GatewayConfig+"\n[content]\nlearned = \"never\"\n[reports]\nfolder = \""+dir+"\"\ntraps = [\"nobody@sink.example\"]\n")
	send := func(host, rcpt, mail string) string {
		t.Helper()
		got, err := sendOne(ctx, l, host, "a@"+host+".example", rcpt, mail)
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	for _, n := range []string{"1", "2", "3"} {
		if got := send("alice", "r"+n+"@sink.example", strings.Replace(minutesMail, "minutes of", "turnips no. "+n+" of", 1)); !strings.HasPrefix(got, "250 ") {
			t.Fatalf("alice hears %q", got)
		}
	}
	arrived := func(n string) []byte { return messageTo(ctx, t, l, "r"+n+"@sink.example").Data }
	if got := send("alice", "r1@sink.example", string(arrived("1"))); !strings.HasPrefix(got, "554 5.4.6 gw.example: [LOOP]") {
		t.Errorf("what comes back to whom it went hears %q", got)
	}

	file := filepath.Join(t.TempDir(), "complaint.eml")
	report := func(b []byte, want bool) (r reportOut) {
		t.Helper()
		if err := os.WriteFile(file, b, 0o644); err != nil {
			t.Fatal(err)
		}
		if err := sluiceJSON(ctx, g, &r, "report", file); err != nil {
			t.Fatal(err)
		}
		if r.Counted != want {
			t.Errorf("counted %v: %+v", r.Counted, r)
		}
		return r
	}
	first := complaintAbout("abuse", "1", arrived("1"))
	if r := report(first, true); r.User != "alice" || r.Reporter != "provider.example" || r.Kind != "abuse" || r.Message == "" || r.Learnt != "spam" {
		t.Errorf("a complaint: %+v", r)
	}
	if r := report(first, false); !r.Again {
		t.Errorf("the same complaint: %+v", r)
	}
	forged := bytes.Replace(arrived("2"), []byte(" id "), []byte(" id 0"), 1)
	if r := report(complaintAbout("abuse", "forged", forged), false); r.User != "" || r.Learnt == "spam" {
		t.Errorf("a forged complaint: %+v", r)
	}
	if r := report(complaintAbout("opt-out", "2", arrived("2")), false); r.User != "alice" || r.Learnt == "spam" {
		t.Errorf("who only wants to leave a list: %+v", r)
	}
	if err := os.WriteFile(file, []byte("From: x@y.example\r\n\r\nstop this spam\r\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := g.Sluice(ctx, "report", file); err != nil || out.Code == 0 || !strings.Contains(out.Stderr, "give a report by RFC 5965") {
		t.Errorf("what is no report: %+v, %v", out, err)
	}

	drop := func(name string, b []byte) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, ".part"), b, 0o666); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(filepath.Join(dir, ".part"), filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	drop("junk", []byte("no report at all"))
	drop("new/2", complaintAbout("fraud", "2", arrived("2")))
	drop("3", complaintAbout("abuse", "3", arrived("3")))
	var locks []struct{ User, Code, Reason string }
	if !eventually(ctx, func() bool {
		locks = nil
		return sluiceJSON(ctx, g, &locks, "locks") == nil && len(locks) == 1
	}) || locks[0].User != "alice" || locks[0].Code != "COMPLAINT" {
		t.Errorf("three complaints lock alice: %+v", locks)
	}
	if !eventually(ctx, func() bool {
		left, err := os.ReadDir(filepath.Join(dir, "new"))
		aside, aerr := os.ReadDir(filepath.Join(dir, "refused"))
		return err == nil && aerr == nil && len(left) == 0 && len(aside) == 1 && aside[0].Name() == "junk"
	}) {
		t.Error("the folder of reports was not cleared")
	}

	if got := send("bob", "nobody@sink.example", plainMail("offer", "to a trap")); !strings.HasPrefix(got, "550 5.7.1 gw.example: [TRAP]") {
		t.Errorf("a message to a trap: %q", got)
	}
	if err := sluiceJSON(ctx, g, &locks, "locks"); err != nil || len(locks) != 2 {
		t.Errorf("a trap locks: %+v, %v", locks, err)
	}
	var model struct{ Lessons int }
	if !eventually(ctx, func() bool { return sluiceJSON(ctx, g, &model, "model") == nil && model.Lessons == 4 }) {
		t.Errorf("%d lessons, want one of each complaint and of the trap", model.Lessons)
	}
}
