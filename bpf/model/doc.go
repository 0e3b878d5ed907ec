// Package model says in plain Go what the kernel's programs decide about a packet, so that tests can compare the two.
//
// It is written to be read: tables are lists that are searched from end to end, packets are byte slices, and nothing is
// fast. Only what cannot be known outside the kernel, its sockets and routes, is asked through State.
package model
