package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// tick is the unit of times in /proc/PID/stat: USER_HZ, which Linux fixes at 100 for programs.
const tick = 10 * time.Millisecond

// usage is what a process and all its descendants took.
type usage struct {
	cpu time.Duration // user and system, of those that live
	rss int64         // proportional set size in bytes: pages that workers share count once
}

// account reads the usage of a process tree.
func account(root int) (usage, error) {
	var u usage
	for _, pid := range tree(root) {
		cpu, err := cpuOf(pid)
		if err != nil {
			return u, err
		}
		rss, err := memoryOf(pid)
		if err != nil {
			return u, err
		}
		u.cpu += cpu
		u.rss += rss
	}
	return u, nil
}

// tree returns the process and its descendants.
func tree(root int) []int {
	pids := []int{root}
	for i := 0; i < len(pids); i++ {
		files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pids[i]))
		for _, file := range files {
			list, _ := os.ReadFile(file) // a thread that just ended has no children
			for field := range strings.FieldsSeq(string(list)) {
				if pid, err := strconv.Atoi(field); err == nil {
					pids = append(pids, pid)
				}
			}
		}
	}
	return pids
}

// cpuOf sums the fields utime and stime of proc(5). It prefers the scheduler's own account in nanoseconds, thread by thread, which has no steps.
func cpuOf(pid int) (time.Duration, error) {
	var sum time.Duration
	files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	for _, file := range files {
		line, err := os.ReadFile(file)
		if err != nil {
			continue // the thread ended; threads of proxies rarely do
		}
		first, _, _ := strings.Cut(string(line), " ")
		ns, err := strconv.ParseInt(first, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("%s: %w", file, err)
		}
		sum += time.Duration(ns)
	}
	if sum > 0 {
		return sum, nil
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:])) // the name before it may hold anything
	if len(fields) < 13 {
		return 0, fmt.Errorf("/proc/%d/stat: %d fields", pid, len(fields))
	}
	for _, field := range fields[11:13] {
		ticks, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("/proc/%d/stat: %w", pid, err)
		}
		sum += time.Duration(ticks) * tick
	}
	return sum, nil
}

func memoryOf(pid int) (int64, error) {
	file := fmt.Sprintf("/proc/%d/smaps_rollup", pid)
	text, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "Pss:"); ok {
			kib, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			return kib << 10, err
		}
	}
	return 0, fmt.Errorf("%s says no Pss", file)
}
