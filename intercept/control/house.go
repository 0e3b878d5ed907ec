package control

import "net/netip"

// HousePrefix begins the name of every listening socket of the smarthost.
const HousePrefix = "smarthost "

// HouseName is the name of the listening socket at an address among the files of a welcome or a hello.
func HouseName(a netip.AddrPort) string { return HousePrefix + a.String() }
