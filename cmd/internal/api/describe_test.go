package api

import (
	"bytes"
	"encoding/json"
	"net/netip"
	"reflect"
	"strings"
	"time"
)

// describe makes the OpenAPI 3.1 description of the routes.
func describe(routes []route) ([]byte, error) {
	schemas := map[string]any{}
	paths := map[string]map[string]any{}
	for _, r := range routes {
		path := strings.ReplaceAll(r.path, "...}", "}")
		if paths[path] == nil {
			paths[path] = map[string]any{}
		}
		paths[path][strings.ToLower(r.method)] = operation(r, schemas)
	}
	schemas["Problem"] = schemaOf(reflect.TypeFor[Problem](), schemas)
	doc := map[string]any{
		"openapi": "3.1.0",
		"info": map[string]any{"title": "Sluice", "version": "1",
			"description": "Served on a unix socket, whose users may do everything, and on api.listen to those who show a token (Authorization: Bearer), as far as its scopes go. x-scope names the one that a request needs."},
		"paths":      paths,
		"components": map[string]any{"schemas": schemas},
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	err := e.Encode(doc)
	return b.Bytes(), err
}

func operation(r route, schemas map[string]any) map[string]any {
	ok := map[string]any{"description": "done"}
	if r.out != nil {
		schema := ref(reflect.TypeOf(r.out), schemas)
		content := map[string]any{"application/json": map[string]any{"schema": schema}}
		if r.stream {
			content["application/jsonl"] = map[string]any{"schema": ref(reflect.TypeOf(r.out).Elem(), schemas)}
		}
		ok["content"] = content
	}
	problem := map[string]any{
		"description": "what went wrong, with its remedy",
		"content": map[string]any{"application/json": map[string]any{"schema": map[string]any{
			"type": "object", "properties": map[string]any{"error": map[string]any{"$ref": "#/components/schemas/Problem"}}}}},
	}
	op := map[string]any{"summary": r.summary, "x-scope": scopeOf(r.method, r.path), "responses": map[string]any{"200": ok, "default": problem}}
	var params []any
	if strings.Contains(r.path, "{name...}") {
		params = append(params, map[string]any{"name": "name", "in": "path", "required": true,
			"description": "name of a user, or an address whose user is meant; a slash may stand as it is", "schema": map[string]any{"type": "string"}})
	}
	for _, p := range r.query {
		params = append(params, map[string]any{"name": p.name, "in": "query", "description": p.doc, "schema": map[string]any{"type": "string"}})
	}
	if params != nil {
		op["parameters"] = params
	}
	if r.in != nil {
		op["requestBody"] = map[string]any{"required": true,
			"content": map[string]any{"application/json": map[string]any{"schema": ref(reflect.TypeOf(r.in), schemas)}}}
	}
	return op
}

// ref returns the schema of t, named structs by reference.
func ref(t reflect.Type, schemas map[string]any) map[string]any {
	text := map[string]any{"type": "string"}
	switch t {
	case reflect.TypeFor[time.Time]():
		text["format"] = "date-time"
		return text
	case reflect.TypeFor[netip.Addr](), reflect.TypeFor[netip.Prefix](), reflect.TypeFor[netip.AddrPort]():
		return text
	}
	switch t.Kind() {
	case reflect.Pointer:
		return ref(t.Elem(), schemas)
	case reflect.Slice:
		return map[string]any{"type": "array", "items": ref(t.Elem(), schemas)}
	case reflect.Map:
		return map[string]any{"type": "object", "additionalProperties": ref(t.Elem(), schemas)}
	case reflect.Bool:
		return map[string]any{"type": "boolean"}
	case reflect.Float64:
		return map[string]any{"type": "number"}
	case reflect.String:
		return text
	case reflect.Struct:
		if _, ok := schemas[t.Name()]; !ok {
			schemas[t.Name()] = nil // against recursion
			schemas[t.Name()] = schemaOf(t, schemas)
		}
		return map[string]any{"$ref": "#/components/schemas/" + t.Name()}
	}
	return map[string]any{"type": "integer"}
}

func schemaOf(t reflect.Type, schemas map[string]any) map[string]any {
	props, required := map[string]any{}, []string{}
	for _, f := range reflect.VisibleFields(t) {
		name, opts, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name == "" || name == "-" {
			continue
		}
		p := ref(f.Type, schemas)
		if doc := f.Tag.Get("doc"); doc != "" {
			p["description"] = doc
		}
		props[name] = p
		if !strings.Contains(opts, "omitempty") {
			required = append(required, name)
		}
	}
	return map[string]any{"type": "object", "properties": props, "required": required}
}
