// Package sign makes the header fields by which a mail can be traced or trusted.
package sign
