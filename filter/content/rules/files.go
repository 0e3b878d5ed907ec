package rules

import (
	"bytes"
	"strings"

	"sluice/filter/content/view"
)

// programs are the endings of names that run when opened.
var programs = set(".exe .scr .pif .com .bat .cmd .cpl .msi .msp .hta .js .jse .vbs .vbe .wsf .wsh .ps1 .lnk .jar .reg .scf .iso .img .vhd .vhdx .appx .msix .one .chm .inf .gadget .application .xll .sct .ade .adp .mde .dll .apk .ace .udf .library-ms .search-ms .settingcontent-ms")

// documents are endings behind which another ending is hidden.
var documents = set(".pdf .doc .docx .xls .xlsx .ppt .pptx .txt .jpg .jpeg .png .gif .rtf .csv .zip .html .htm .mp3 .mp4 .eml")

// archives are the endings of archives.
var archives = set(".zip .rar .7z .gz .tgz .tar .bz2 .xz .cab .arj .lzh .z .r00 .zipx .ace .iso .img")

// files looks at what is attached.
func (c *checker) files() {
	budget := maxInflate
	for i := range c.v.Files {
		f := &c.v.Files[i]
		c.fileName(f.Name, f.Name, false)
		if program(f.Head) && !programs[ending(f.Name)] {
			c.fire(&fileType, f.Name+" is declared "+f.Type)
		}
		switch e := ending(f.Name); {
		case e == ".htm" || e == ".html" || e == ".shtml" || e == ".xhtml" || e == ".svg" || f.Type == "text/html":
			c.page(f, e == ".svg" || strings.HasPrefix(f.Type, "image/svg"))
		case bytes.HasPrefix(f.Head, []byte("\xd0\xcf\x11\xe0")):
			if oleMacros(f.Head) {
				c.fire(&fileMacro, f.Name)
			}
		default:
			a := archive{c: c, name: f.Name, budget: &budget}
			a.look(f.Head, 0)
		}
	}
}

// fileName judges a name, of a file or of a member of an archive.
func (c *checker) fileName(name, where string, inside bool) {
	name = strings.TrimRight(strings.ToLower(name), " .")
	e := ending(name)
	if !programs[e] {
		return
	}
	front := strings.TrimRight(strings.TrimSuffix(name, e), " _")
	switch {
	case documents[ending(front)] || strings.Contains(name, "     ") || strings.ContainsRune(name, '\u202e'):
		c.fire(&fileDouble, where)
	case inside:
		c.fire(&fileInside, where)
	default:
		c.fire(&fileExec, where)
	}
}

// ending returns the last ending of a name in lower case, with its dot.
func ending(name string) string {
	i := strings.LastIndexByte(name, '.')
	if i < 0 || len(name)-i > 20 {
		return ""
	}
	return strings.ToLower(strings.TrimRight(name[i:], " "))
}

// program reports whether content is a program by its first bytes.
func program(head []byte) bool {
	return bytes.HasPrefix(head, []byte("MZ")) && len(head) > 40 || bytes.HasPrefix(head, []byte("\x7fELF")) || bytes.HasPrefix(head, []byte("\x4c\x00\x00\x00\x01\x14\x02\x00"))
}

// page looks into an attached web page or picture that can be one.
func (c *checker) page(f *view.File, picture bool) {
	low := bytes.ToLower(f.Head[:min(len(f.Head), 128<<10)])
	for _, sign := range []string{"<form", "type=\"password\"", "type='password'", "type=password", "<script", "atob(", "unescape(", "document.write", "window.location", "http-equiv=\"refresh\""} {
		if bytes.Contains(low, []byte(sign)) {
			c.fire(&fileForm, f.Name+" contains "+sign)
			return
		}
	}
	if !picture {
		c.fire(&fileHTML, f.Name)
	}
}

// oleMacros reports whether an old document has a store of macros.
func oleMacros(head []byte) bool {
	return bytes.Contains(head, []byte("_\x00V\x00B\x00A\x00_\x00P\x00R\x00O\x00J\x00E\x00C\x00T")) || bytes.Contains(head, []byte("V\x00B\x00A\x00\x00\x00"))
}
