//go:build labtest

package lab

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// dkimDomain signs; its keys are in the lab's DNS.
const dkimDomain = "signed.example"

// A signature is how dkimpy is to sign.
type signature struct {
	Selector  string   `json:"selector"`
	Domain    string   `json:"domain"`
	Key       string   `json:"key"`
	Algorithm string   `json:"algorithm"`
	Header    string   `json:"header"` // canonicalization
	Body      string   `json:"body"`
	Length    bool     `json:"length"`
	Fields    []string `json:"fields"`
}

// dkimKeys are one key of each kind, and what the DNS has of them.
type dkimKeys struct {
	rsa, ed string
	txt     map[string]string
}

func newDKIMKeys() (dkimKeys, error) {
	r, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return dkimKeys{}, err
	}
	public, err := x509.MarshalPKIXPublicKey(&r.PublicKey)
	if err != nil {
		return dkimKeys{}, err
	}
	pub, e, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return dkimKeys{}, err
	}
	text := base64.StdEncoding.EncodeToString
	return dkimKeys{
		rsa: string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(r)})),
		ed:  text(e.Seed()),
		txt: map[string]string{
			"rsa._domainkey." + dkimDomain: "v=DKIM1; k=rsa; p=" + text(public),
			"ed._domainkey." + dkimDomain:  "v=DKIM1; k=ed25519; p=" + text(pub),
		},
	}, nil
}

func (k dkimKeys) by(algorithm, header, body string, length bool, fields ...string) signature {
	s := signature{"rsa", dkimDomain, k.rsa, "rsa-sha256", header, body, length, fields}
	if algorithm == "ed25519" {
		s.Selector, s.Key, s.Algorithm = "ed", k.ed, "ed25519-sha256"
	}
	if fields == nil {
		s.Fields = []string{}
	}
	return s
}

const signedHead = "From: Jo <jo@signed.example>\r\nTo: b@example.net,\r\n\t c@example.net\r\nSubject:  two  blanks\t\r\n  and a fold \r\n" +
	"Date: Sat, 21 Nov 2026 10:00:00 +0000\r\nMessage-ID: <signed@signed.example>\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"

// signed are messages whose signatures the least change would break, signed by dkimpy.
func signed(ctx context.Context, tools *Toolbox, k dkimKeys) ([][]byte, error) {
	bodies := []string{
		"text\r\n",
		".\r\n..\r\n.dots\r\n. \r\n",
		"text\r\n\r\n\r\n\r\n",
		"blanks \r\n\t\r\n  a  b \t\r\n",
		"Grüße, \xe9\xff\r\n",
		strings.Repeat("x", 998) + "\r\n" + strings.Repeat("0123456789. ", 83) + "\r\n",
		"",
	}
	often := []string{"From", "From", "To", "To", "Subject", "Subject", "Date", "Date", "Message-ID", "Message-ID", "Reply-To", "Cc"}
	ways := [][]signature{
		{k.by("rsa", "relaxed", "relaxed", false)},
		{k.by("rsa", "simple", "simple", false)},
		{k.by("rsa", "simple", "relaxed", false, often...)},
		{k.by("rsa", "relaxed", "simple", true)},
		{k.by("ed25519", "relaxed", "relaxed", false)},
		{k.by("ed25519", "simple", "simple", false, often...), k.by("rsa", "simple", "simple", false, often...)},
	}
	type job struct {
		Data       []byte      `json:"data"`
		Signatures []signature `json:"signatures"`
	}
	var jobs []job
	for i := range len(bodies) * len(ways) { // numbers without a common factor: each with each
		jobs = append(jobs, job{[]byte(signedHead + bodies[i%len(bodies)]), ways[i%len(ways)]})
	}
	var all [][]byte
	return all, dkimpy(ctx, tools, "sign", jobs, &all)
}

// dkimpy runs the program on jobs.
func dkimpy(ctx context.Context, tools *Toolbox, what string, jobs, results any) error {
	in, err := json.Marshal(jobs)
	if err != nil {
		return err
	}
	out, err := tools.Run(ctx, in, "/usr/bin/python3", "/srv/dkim_tool.py", what)
	if err != nil {
		return err
	}
	if err := json.Unmarshal([]byte(out.Stdout), results); err != nil {
		return fmt.Errorf("dkimpy could not %s: %w: %s", what, err, out.Stderr)
	}
	return nil
}

// judged is what dkimpy and OpenDKIM say of messages.
func judged(ctx context.Context, tools *Toolbox, messages [][]byte) ([]string, error) {
	type job struct {
		Data []byte `json:"data"`
	}
	var jobs []job
	for _, m := range messages {
		jobs = append(jobs, job{m})
	}
	var results [][]string
	if err := dkimpy(ctx, tools, "verify", jobs, &results); err != nil {
		return nil, err
	}
	if len(results) != len(messages) {
		return nil, fmt.Errorf("dkimpy judged %d messages of %d", len(results), len(messages))
	}
	var all []string
	for i, m := range messages {
		out, err := tools.Run(ctx, m, "/usr/sbin/opendkim-testmsg")
		if err != nil {
			return nil, err
		}
		opendkim := "good"
		if out.Code != 0 {
			opendkim = strings.TrimSpace(out.Stderr + out.Stdout)
		}
		all = append(all, fmt.Sprintf("dkimpy: %s, OpenDKIM: %s", strings.Join(results[i], " and "), opendkim))
	}
	return all, nil
}

// expectSignatures checks that each signature that was good when it was sent is good in what arrived through the gateway;
// where one is not, the pair must break it without Sluice as well.
func expectSignatures(ctx context.Context, t *testing.T, tools [2]*Toolbox, seen [2]*fates) {
	t.Helper()
	var verdicts [2]map[string]string
	judge := func(i int) func() error {
		return func() (err error) { verdicts[i], err = verdictsOf(ctx, tools[i], seen[i].came); return err }
	}
	if err := together(judge(0), judge(1)); err != nil {
		t.Fatal(err)
	}
	good := 0
	for id, v := range verdicts[1] {
		switch without := verdicts[0][id]; {
		case isGood(v):
			good++
		case without != v && !strings.HasPrefix(id, "exim-haraka-"):
			t.Errorf("%s: %s; without Sluice: %s", id, v, without)
		default:
			t.Logf("%s: broken without Sluice, too: %s", id, v)
		}
	}
	t.Logf("%d of %d signed messages arrived with all signatures good", good, len(verdicts[1]))
	if good < len(verdicts[1])*9/10 || good < 7*6 {
		t.Error("too few signatures held to tell anything")
	}
}

// isGood tells whether both verifiers say so of every signature.
func isGood(verdict string) bool {
	return verdict == "dkimpy: good, OpenDKIM: good" || verdict == "dkimpy: good and good, OpenDKIM: good"
}

// expectVerifiers checks that the verifiers know good from bad: the messages as they are, and with one blank more.
func expectVerifiers(ctx context.Context, t *testing.T, tools *Toolbox, letters [][]byte) {
	t.Helper()
	spoilt := [][]byte{bytes.Replace(letters[1], []byte("two  blanks"), []byte("two   blanks"), 1), bytes.Replace(letters[0], []byte("text\r\n"), []byte("texts\r\n"), 1)}
	verdicts, err := judged(ctx, tools, append(slices.Clone(letters), spoilt...))
	if err != nil {
		t.Fatal(err)
	}
	for i, v := range verdicts {
		switch {
		case i < len(letters) && !isGood(v):
			t.Errorf("before it is sent: %s: %.500q", v, letters[i])
		case i >= len(letters) && strings.Contains(v, "good"):
			t.Errorf("spoilt: %s", v)
		}
	}
}

// verdictsOf judges what arrived of the signed messages, by id.
func verdictsOf(ctx context.Context, tools *Toolbox, came []arrival) (map[string]string, error) {
	came = slices.DeleteFunc(slices.Clone(came), func(a arrival) bool { return !strings.Contains(a.id, ".signed") })
	var messages [][]byte
	for _, a := range came {
		messages = append(messages, a.data)
	}
	all, err := judged(ctx, tools, messages)
	if err != nil {
		return nil, err
	}
	byID := map[string]string{}
	for i, a := range came {
		byID[a.id] = all[i]
	}
	return byID, nil
}
