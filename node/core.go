package node

import "github.com/replblk/replblk/replication"

func newCore(cfg replication.Config) core { return replication.New(cfg) }
