package lab

import (
	"fmt"
	"strings"
)

// Picture draws the lab with its addresses, for people.
func (l *Lab) Picture() string {
	var left []string
	for i, c := range l.Customers() {
		left = append(left, fmt.Sprintf("%-8s %-11s %-19s --cust%d--", c.Name, text(c.V4.String(), c.V4.IsValid()), text(c.V6.String(), c.V6.IsValid()), i))
	}
	right := []string{fmt.Sprintf("DNS          %s  %s", ResolverV4, ResolverV6)}
	for _, m := range Hosts() {
		if strings.HasPrefix(m.Name, "peer") && m.Name != "peer01" {
			continue
		}
		name, note := m.Domain(), m.Note
		if m.Name == "peer01" {
			note = fmt.Sprintf("scripted; so are peer02 … peer%02d", Scripted)
		}
		v4, v6 := "-", "-"
		if a := m.V4(); a.IsValid() {
			v4 = a.String()
		}
		if a := m.V6(); a.IsValid() {
			v6 = a.String()
		}
		right = append(right, fmt.Sprintf("%-18s %-14s %-18s %s", name, v4, v6, note))
	}
	var b strings.Builder
	b.WriteString("\n  customers                                               gw                        net (the internet)\n\n")
	for i := range max(len(left), 5) {
		l := ""
		if i < len(left) {
			l = left[i]
		}
		box := []string{"+-------------------+", "| " + fmt.Sprintf("%-17s", GatewayV4) + " |", "| " + fmt.Sprintf("%-17s", GatewayV6) + " |--up0-- router", "| 203.0.113.16/28   |", "+-------------------+"}
		part := "|                   |"
		if i < len(box) {
			part = box[i]
		}
		fmt.Fprintf(&b, "  %-52s%s\n", l, part)
	}
	b.WriteString("\n  on the internet:\n")
	for _, r := range right {
		b.WriteString("    " + r + "\n")
	}
	b.WriteString("    also: deadfirst.example (MX refused, then alive), slowfirst.example (dropped, then alive), nullmx, nomx.example\n")
	b.WriteString("    at every sink: recipients reject…@ get 550, defer…@ get 451\n")
	return b.String()
}

func text(s string, ok bool) string {
	if !ok {
		return "-"
	}
	return s
}
