package identity

import (
	"strings"
)

// forms are the ready-made readings of header fields that hosting panels and mail servers write, by the field's name in
// lower case. They return "" where the field tells nobody. What stands in no form is taken whole.
var forms = map[string]func(value string) string{
	"x-php-script":             phpScript,
	"x-get-message-sender-via": senderVia,
	"x-authenticated-sender":   afterHost,
}

// phpScript reads "www.customer.example/shop/mail.php for 192.0.2.7": the script, without the visitor who called it.
func phpScript(v string) string {
	script, _, _ := strings.Cut(v, " for ")
	return script
}

// senderVia reads "web1.provider.example: authenticated_id: info@customer.example" of Exim under cPanel. Some ways to tell
// have words behind the name: "acl_c_authenticated_local_user: alice/from_h".
func senderVia(v string) string {
	v = afterHost(v)
	if _, who, ok := strings.Cut(v, ": "); ok {
		v = who
	}
	v, _, _ = strings.Cut(v, "/from_h")
	return told(v)
}

// afterHost reads "web1.provider.example: info@customer.example".
func afterHost(v string) string {
	if _, who, ok := strings.Cut(v, ": "); ok {
		v = who
	}
	return told(v)
}

// told gives "" for the words by which panels say that they do not know.
func told(v string) string {
	switch v = strings.TrimSpace(v); strings.ToLower(v) {
	case "none", "unknown", "-":
		return ""
	}
	return v
}

// received reads a trace field by the forms of Postfix, Exim and Sendmail, and tells which host says that it wrote it.
//
//	by web1.customer.example (Postfix, from userid 33) id …
//	from [192.0.2.9] (unknown [192.0.2.9]) (Authenticated sender: info@customer.example) by web1.customer.example (Postfix) …
//	from alice by web1.customer.example with local (Exim 4.96) (envelope-from <…>) id …
//	(from www@localhost) by web1.customer.example (8.17.1/8.17.1/Submit) id …
func received(v string) (who, by string) {
	plain, comments := split(v)
	fields := strings.Fields(plain)
	for i := len(fields) - 2; i >= 0; i-- { // the last one: what stands before it may be a stranger's HELO
		if strings.EqualFold(fields[i], "by") {
			by = fields[i+1]
			if i == 2 && strings.EqualFold(fields[0], "from") && withLocal(fields[i+2:]) {
				who = fields[1]
			}
			break
		}
	}
	authenticated := 0
	for _, c := range comments {
		switch {
		case strings.HasPrefix(c, "Authenticated sender: "):
			who = strings.TrimPrefix(c, "Authenticated sender: ")
			authenticated++
		case strings.HasPrefix(c, "Postfix, from userid "):
			who = strings.TrimPrefix(c, "Postfix, from ")
		case strings.HasPrefix(c, "from ") && len(fields) > 0 && strings.EqualFold(fields[0], "by"):
			who = strings.TrimPrefix(c, "from ")
		}
	}
	if authenticated > 1 {
		return "", by
	}
	return who, by
}

// withLocal tells whether a message came from the host itself: "with local".
func withLocal(rest []string) bool {
	for i := 0; i+1 < len(rest); i++ {
		if strings.EqualFold(rest[i], "with") {
			return strings.EqualFold(rest[i+1], "local") || strings.EqualFold(rest[i+1], "local-esmtp") || strings.EqualFold(rest[i+1], "local-smtp")
		}
	}
	return false
}

// split takes the comments (RFC 5322 3.2.2) out of a field; each leaves a space behind. What stands in a comment's
// comment belongs to it.
func split(v string) (plain string, comments []string) {
	var b strings.Builder
	depth, from := 0, 0
	for i := 0; i < len(v); i++ {
		switch c := v[i]; {
		case c == '\\' && depth > 0:
			i++
		case c == '(':
			if depth++; depth == 1 {
				from = i + 1
			}
		case c == ')' && depth > 0:
			if depth--; depth == 0 {
				comments = append(comments, v[from:i])
				b.WriteByte(' ')
			}
		case depth == 0:
			b.WriteByte(c)
		}
	}
	return b.String(), comments
}
