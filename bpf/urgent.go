package bpf

// UrgentLocks is how many locks may be on their way at once. The map has one element more, before them.
const UrgentLocks = int(mailNumberURGENT_LOCKS)

// Urgent is an element of the map behind UrgentFile, as who writes them must lay it out.
type Urgent = mailUrgent
