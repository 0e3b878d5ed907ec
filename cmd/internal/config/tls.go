package config

import (
	"net/netip"
	"time"
)

// TLS is the client's leg.
type TLS struct {
	StartTLS       string           `toml:"starttls" default:"terminate" enum:"terminate|pass|strip" doc:"terminate: STARTTLS is offered with the gateway's certificate wherever the destination offers it and its handshake succeeded. pass: it is left to client and destination, from the customer's own address; connections and bytes are counted, and what is in them is not read. strip: never offered."`
	StartTLSReason string           `toml:"starttls_reason" doc:"Why, for log and list. strip needs one."`
	Refused        string           `toml:"refused" default:"published" enum:"published|person" doc:"Clients that refuse the gateway's certificate are learnt by source and destination. published: STARTTLS passes for them unread where the destination publishes TLSA records or an MTA-STS policy in mode enforce, 30 connections and 50 MB an hour for each source, for 7 days, but not for a user whom bad mail has locked since a person last unlocked him; so it does where the destination wants a certificate which only the client has. person: only where somebody allows it."`
	Certificate    string           `toml:"certificate" doc:"PEM file with the certificate chain for clients. Empty: a self-made one for gateway.name."`
	Key            string           `toml:"key" doc:"PEM file with its private key, readable by sluiced."`
	CADomains      []string         `toml:"ca_domains" doc:"Domains inside of which clients are shown a certificate for the very name they ask for (SNI), made by an authority of this gateway that can certify nothing else. Its certificate, for clients to trust, is printed by sluice tls ca. Empty: there is no such authority."`
	ACME           ACME             `toml:"acme" doc:"An authority certifies the names that clients use, and renews that in time (ACME)."`
	Destination    []TLSDestination `toml:"destination" doc:"Destinations whose STARTTLS is treated otherwise than the user's setting says. The longest prefix wins; with equal ones the one with a port."`
}

// ACME has an authority certify the names that clients use.
type ACME struct {
	Listen    []netip.AddrPort `toml:"listen" doc:"Addresses of this host at which the authority looks whether the names lead here: with port 80 by HTTP (http-01), with 443 by TLS (tls-alpn-01). sluice-intercept opens them. Left out: no authority is asked."`
	Names     []string         `toml:"names" doc:"Names in the certificate. Left out: smarthost.name."`
	Directory string           `toml:"directory" default:"https://acme-v02.api.letsencrypt.org/directory" doc:"The authority's address (RFC 8555)."`
	Contact   string           `toml:"contact" doc:"Mailbox to which the authority writes."`
	Agree     bool             `toml:"agree" default:"false" doc:"true: you agree to the authority's terms of service."`
	Account   string           `toml:"account" doc:"Name of an account that you have with the authority already, where it asks for one (external account binding)."`
	Key       string           `toml:"account_key_file" doc:"File with that account's secret in base64url, as the authority gave it, readable by sluiced."`
	Roots     string           `toml:"roots" doc:"PEM file with the authorities by which the authority's own address is trusted. Left out: those of the system."`
}

// TLSDestination is what becomes of STARTTLS towards some destinations.
type TLSDestination struct {
	Prefix   Prefix    `toml:"prefix" required:"true" doc:"Destination prefix or address."`
	Port     uint16    `toml:"port" doc:"Destination port; 0 is every mail port."`
	StartTLS string    `toml:"starttls" required:"true" enum:"terminate|pass|strip" doc:"As tls.starttls."`
	Reason   string    `toml:"reason" required:"true" doc:"Why, for log and list."`
	Until    time.Time `toml:"until" doc:"When the rule ends (RFC 3339, such as 2027-01-31T00:00:00Z). Left out: never."`
}
