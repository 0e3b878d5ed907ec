package policy

import (
	"encoding"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
)

// Settings have flat names for people, tables and files: those of Overrides' JSON, "messages_per_day" and the other limits
// with ".action", ".shadow" and ".text" behind them, "identity" with ".headers", ".hosts" and ".remove", and
// "per_identity." before the limits of each identity.
const perIdentity = "per_identity."

// aspects of a limit beside its maximum.
var aspects = []string{"action", "shadow", "text"}

// plainKeys are the fields of Overrides that hold one value, by name.
var plainKeys = func() map[string]int {
	keys := map[string]int{}
	t := reflect.TypeFor[Overrides]()
	for i := range t.NumField() {
		name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
		switch name {
		case "messages_per_hour", "recipients_per_hour", "limits", "limits_per_identity", "identity": // these are spelled out
		default:
			keys[name] = i
		}
	}
	return keys
}()

// Keys returns the flat names of all settings, sorted.
func Keys() []string {
	keys := append(slices.Collect(maps.Keys(plainKeys)), "identity", "identity.headers", "identity.hosts", "identity.remove")
	for _, n := range LimitNames() {
		for _, before := range []string{"", perIdentity} {
			keys = append(keys, before+n)
			for _, a := range aspects {
				keys = append(keys, before+n+"."+a)
			}
		}
	}
	slices.Sort(keys)
	return keys
}

// Set says that a setting is not inherited but is what the text says.
func (o *Overrides) Set(key, text string) error {
	if err := o.put(key, &text); err != nil {
		return err
	}
	return o.Validate()
}

// Put does as Set, but what belongs together is checked by Validate later.
func (o *Overrides) Put(key, text string) error { return o.put(key, &text) }

// Unset lets a setting be inherited again.
func (o *Overrides) Unset(key string) error { return o.put(key, nil) }

// put changes a setting; nil inherits.
func (o *Overrides) put(key string, text *string) error {
	o.spellOut()
	if i, ok := plainKeys[key]; ok {
		return putField(reflect.ValueOf(o).Elem().Field(i), key, text)
	}
	if rest, ok := strings.CutPrefix(key, "identity"); ok && (rest == "" || rest[0] == '.') {
		return o.putIdentity(strings.TrimPrefix(rest, "."), text)
	}
	limits, name := &o.Limits, key
	if rest, ok := strings.CutPrefix(key, perIdentity); ok {
		limits, name = &o.PerIdentity, rest
	}
	name, aspect, _ := strings.Cut(name, ".")
	if _, err := ParseLimitKind(name); err != nil || aspect != "" && !slices.Contains(aspects, aspect) {
		return fmt.Errorf("there is no setting %q; `sluice settings keys` lists all", key)
	}
	return putLimit(limits, name, aspect, key, text)
}

// spellOut moves the two limits that have older names to where all limits are.
func (o *Overrides) spellOut() {
	for name, old := range map[string]**int{"messages_per_hour": &o.MessagesPerHour, "recipients_per_hour": &o.RecipientsPerHour} {
		if *old == nil {
			continue
		}
		n := int64(**old)
		*old = nil
		c := o.Limits.clone()
		if ch := c[name]; ch.Max == nil {
			ch.Max = &n
			c[name] = ch
		}
		o.Limits = &c
	}
}

func (c *LimitChanges) clone() LimitChanges {
	if c == nil {
		return LimitChanges{}
	}
	return maps.Clone(*c)
}

func putLimit(limits **LimitChanges, name, aspect, key string, text *string) error {
	c := (*limits).clone()
	ch := c[name]
	var field reflect.Value
	switch v := reflect.ValueOf(&ch).Elem(); aspect {
	case "":
		field = v.FieldByName("Max")
	case "action":
		field = v.FieldByName("Action")
	case "shadow":
		field = v.FieldByName("Shadow")
	default:
		field = v.FieldByName("Text")
	}
	if err := putField(field, key, text); err != nil {
		return err
	}
	if c[name] = ch; ch == (LimitChange{}) {
		delete(c, name)
	}
	if *limits = &c; len(c) == 0 {
		*limits = nil
	}
	return nil
}

// putIdentity changes a part of how identities are told. The parts are inherited together.
func (o *Overrides) putIdentity(part string, text *string) error {
	if text == nil {
		o.Identify = nil
		return nil
	}
	id := Identify{}
	if o.Identify != nil {
		id = *o.Identify
	}
	var err error
	switch part {
	case "":
		err = id.Method.UnmarshalText([]byte(*text))
	case "headers":
		id.Headers = nil
		for one := range strings.SplitSeq(*text, "|") {
			var r HeaderRule
			if err = r.UnmarshalText([]byte(strings.TrimSpace(one))); err != nil {
				return err
			}
			id.Headers = append(id.Headers, r)
		}
	case "hosts":
		id.Hosts = strings.FieldsFunc(*text, func(r rune) bool { return r == '|' || r == ' ' })
	case "remove":
		id.Remove, err = parseBool("identity.remove", *text)
	default:
		err = fmt.Errorf("there is no setting \"identity.%s\"; `sluice settings keys` lists all", part)
	}
	if err == nil {
		o.Identify = &id
	}
	return err
}

// putField reads text into a field that is a pointer.
func putField(f reflect.Value, key string, text *string) error {
	if text == nil {
		f.SetZero()
		return nil
	}
	v := reflect.New(f.Type().Elem())
	if u, ok := v.Interface().(encoding.TextUnmarshaler); ok {
		if err := u.UnmarshalText([]byte(*text)); err != nil {
			return err
		}
		f.Set(v)
		return nil
	}
	switch e := v.Elem(); e.Kind() {
	case reflect.Bool:
		b, err := parseBool(key, *text)
		if err != nil {
			return err
		}
		e.SetBool(b)
	case reflect.String:
		e.SetString(*text)
	case reflect.Float64:
		n, err := strconv.ParseFloat(*text, 64)
		if err != nil {
			return fmt.Errorf("%s is %q, want a number such as 0.2", key, *text)
		}
		e.SetFloat(n)
	default:
		n, err := strconv.ParseInt(*text, 10, 64)
		if err != nil {
			return fmt.Errorf("%s is %q, want a whole number", key, *text)
		}
		e.SetInt(n)
	}
	f.Set(v)
	return nil
}

func parseBool(key, text string) (bool, error) {
	switch strings.ToLower(text) {
	case "true", "on", "yes", "1":
		return true, nil
	case "false", "off", "no", "0":
		return false, nil
	}
	return false, fmt.Errorf("%s is %q, want on or off", key, text)
}

// Flat returns what is not inherited, by flat names.
func (o *Overrides) Flat() map[string]string {
	c := *o
	c.spellOut()
	flat := map[string]string{}
	v := reflect.ValueOf(&c).Elem()
	for name, i := range plainKeys {
		if f := v.Field(i); !f.IsNil() {
			flat[name] = textOf(f.Elem())
		}
	}
	if id := c.Identify; id != nil {
		flat["identity"], flat["identity.remove"] = id.Method.String(), textOf(reflect.ValueOf(id.Remove))
		var rules []string
		for _, h := range id.Headers {
			text, _ := h.MarshalText()
			rules = append(rules, string(text))
		}
		flat["identity.headers"], flat["identity.hosts"] = strings.Join(rules, " | "), strings.Join(id.Hosts, " ")
	}
	for before, limits := range map[string]*LimitChanges{"": c.Limits, perIdentity: c.PerIdentity} {
		if limits == nil {
			continue
		}
		for name, ch := range *limits {
			for aspect, f := range map[string]reflect.Value{"": reflect.ValueOf(ch.Max), ".action": reflect.ValueOf(ch.Action), ".shadow": reflect.ValueOf(ch.Shadow), ".text": reflect.ValueOf(ch.Text)} {
				if !f.IsNil() {
					flat[before+name+aspect] = textOf(f.Elem())
				}
			}
		}
	}
	return flat
}

func textOf(v reflect.Value) string {
	if m, ok := v.Interface().(encoding.TextMarshaler); ok {
		text, err := m.MarshalText()
		if err == nil {
			return string(text)
		}
	}
	switch v.Kind() {
	case reflect.Bool:
		if v.Bool() {
			return "on"
		}
		return "off"
	case reflect.String:
		return v.String()
	}
	text, _ := json.Marshal(v.Interface()) // numbers
	return string(text)
}

// Empty tells whether everything is inherited.
func (o *Overrides) Empty() bool { return *o == (Overrides{}) }
