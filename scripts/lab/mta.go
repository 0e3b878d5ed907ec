package lab
type MTA struct{}
