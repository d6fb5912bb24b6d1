// Package lint holds tests of the source tree itself: who imports whom, that the
// core stays pure, that files stay readable. It has no code.
package lint
