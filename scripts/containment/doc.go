// Package containment plays compromised customers, among good ones, against the gateway's own filter, limits and locks on a
// simulated clock, and counts what escapes and who is hurt.
package containment
