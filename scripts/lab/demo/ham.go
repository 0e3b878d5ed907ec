package demo

import (
	"bytes"
	"encoding/csv"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
)

// ham returns n good messages with CRLF line ends and says where they come from: the development corpus where it is
// at hand, else messages written here.
func ham(n int) (messages [][]byte, origin string, err error) {
	dir := os.Getenv("SLUICE_CORPUS")
	if dir == "" {
		dir = filepath.Join("..", "shared", "corpus")
	}
	if _, err := os.Stat(filepath.Join(dir, "index.csv")); err != nil {
		return written(n), "written for the demo (no corpus here; SLUICE_CORPUS names one)", nil
	}
	messages, err = corpus(dir, n)
	return messages, "ham of the development corpus", err
}

// corpus draws n ham messages evenly over the corpus in dir. It takes messages that a mail server passes on without
// adding to their header, so that what arrives can be compared byte for byte.
func corpus(dir string, n int) ([][]byte, error) {
	names, err := hamNames(filepath.Join(dir, "index.csv"))
	if err != nil {
		return nil, err
	}
	tmp, err := os.MkdirTemp("", "sluice-demo-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(tmp)
	// Half of what is listed may be unfit; three times n is plenty to draw from.
	var draw []string
	for i := range min(3*n, len(names)) {
		draw = append(draw, "sub/"+names[i*len(names)/min(3*n, len(names))])
	}
	tar := exec.Command("tar", append([]string{"--zstd", "-C", tmp, "-xf", filepath.Join(dir, "mail.tar.zst")}, draw...)...)
	if out, err := tar.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("unpack the corpus: %w: %s", err, out)
	}
	var messages [][]byte
	for _, name := range draw {
		data, err := os.ReadFile(filepath.Join(tmp, name))
		if err != nil {
			return nil, err
		}
		if data = canonical(data); fit(data) && len(messages) < n {
			messages = append(messages, data)
		}
	}
	if len(messages) < n {
		return nil, fmt.Errorf("only %d of %d drawn messages of the corpus are fit for the demo, want %d", len(messages), len(draw), n)
	}
	return messages, nil
}

// hamNames lists the ham of an index whose size a mail server takes in its stride.
func hamNames(index string) ([]string, error) {
	f, err := os.Open(index)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	rows, err := csv.NewReader(f).ReadAll()
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", index, err)
	}
	col := map[string]int{}
	for i, name := range rows[0] {
		col[name] = i
	}
	var names []string
	for _, r := range rows[1:] {
		if size, _ := strconv.Atoi(r[col["sub_bytes"]]); r[col["label"]] == "ham" && size > 0 && size < 100_000 {
			names = append(names, filepath.Base(r[col["file"]]))
		}
	}
	return names, nil
}

// canonical gives data the line ends of SMTP, whatever the file had.
func canonical(data []byte) []byte {
	data = bytes.ReplaceAll(data, []byte("\r\n"), []byte("\n"))
	if !bytes.HasSuffix(data, []byte("\n")) {
		data = append(data, '\n')
	}
	return bytes.ReplaceAll(data, []byte("\n"), []byte("\r\n"))
}

// fit reports whether a mail server leaves the message as it is: complete header, no characters that SMTP forbids, no
// line so long that it would be broken.
func fit(data []byte) bool {
	head, _, ok := bytes.Cut(data, []byte("\r\n\r\n"))
	if !ok || bytes.IndexByte(data, 0) >= 0 || bytes.Count(data, []byte("\r")) != bytes.Count(data, []byte("\r\n")) {
		return false
	}
	for line := range bytes.Lines(data) {
		if len(line) > 990 {
			return false
		}
	}
	have := map[string]int{}
	for line := range strings.Lines(string(head)) {
		if line[0] == ' ' || line[0] == '\t' {
			continue
		}
		name, _, ok := strings.Cut(line, ":")
		if !ok || strings.ContainsAny(name, " \t") {
			return false
		}
		have[strings.ToLower(name)]++
	}
	return have["from"] == 1 && have["date"] == 1 && have["message-id"] == 1 && have["to"] == 1 &&
		have["received"] == 0 && have["bcc"] == 0 && have["return-path"] == 0 && have["resent-from"] == 0
}

// readdress puts rcpt into the To field, so that header and envelope agree on the lab's domains.
func readdress(data []byte, rcpt string) []byte {
	start := 0
	if !bytes.EqualFold(data[:3], []byte("to:")) {
		start = bytes.Index(bytes.ToLower(data), []byte("\r\nto:")) + 2
	}
	end := start
	for {
		end += bytes.IndexByte(data[end:], '\n') + 1
		if data[end] != ' ' && data[end] != '\t' {
			break
		}
	}
	out := append([]byte{}, data[:start]...)
	out = append(out, "To: <"+rcpt+">\r\n"...)
	return append(out, data[end:]...)
}

// written makes n messages of every form that a relay could damage: leading dots, 8-bit text, long lines, no final
// empty line, attachments.
func written(n int) [][]byte {
	bodies := []string{
		"Dear colleague,\r\n\r\nthe invoice for %d is attached.\r\n",
		".\r\n..\r\n...leading dots, %d of them\r\n.\r\n",
		"Grüße aus Köln, Nummer %d: äöüß €\r\n",
		strings.Repeat("a long line ", 80) + "%d\r\n",
		"--b\r\nContent-Type: application/octet-stream\r\nContent-Transfer-Encoding: base64\r\n\r\n" +
			strings.Repeat(strings.Repeat("QUJD", 18)+"\r\n", 200) + "--b--\r\n%d\r\n",
		"From the start of a line, %d\r\nFrom again\r\n",
		"\r\n\r\n\r\n%d empty lines\r\n\r\n",
	}
	var messages [][]byte
	for i := range n {
		head := fmt.Sprintf("From: Alice <alice@alice.example>\r\nTo: x@d01.example\r\nSubject: message %d\r\n"+
			"Date: Sat, 21 Nov 2026 10:00:00 +0000\r\nMessage-ID: <%d.demo@alice.example>\r\n"+
			"MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n", i, i)
		messages = append(messages, []byte(head+fmt.Sprintf(bodies[i%len(bodies)], i)))
	}
	return messages
}
