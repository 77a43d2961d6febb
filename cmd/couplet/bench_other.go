//go:build !linux

package main

import (
	"errors"

	"github.com/spf13/cobra"
)

func newBench(*common) *cobra.Command {
	return &cobra.Command{
		Use:   "bench",
		Short: "Measure which engine is better for a workload (Linux only)",
		RunE: func(*cobra.Command, []string) error {
			return failure{errors.New("couplet bench needs Linux: CPU affinity, and epoll in the generator")}
		},
	}
}

func newBenchServer(*common) *cobra.Command { return &cobra.Command{Use: "server", Hidden: true} }
