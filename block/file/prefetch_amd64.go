package file

// prefetch has the processor fetch p into its cache, without waiting for it. It is no access: p
// need not be there.
//
//go:noescape
func prefetch(p []byte)
