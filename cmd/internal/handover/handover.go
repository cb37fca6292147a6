// Package handover passes the sockets of a process to another one that runs a newer binary, so that no connection is refused in between.
//
// The old process starts the new one with [Start], which returns when the new one serves ([Inheritance.Serving]) or has failed. What only one of them may read, such
// as UDP sockets, the old one gives up later, by [Successor.Release]; the new one waits for that ([Inheritance.Released]).
//
// The sockets are descriptors from 3 on, in the order of their names in an environment variable, behind two pipes: the one by which the new process says that it
// serves, and the one whose end tells it that all is released, which the death of the old process does too.
package handover

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"time"
)

// variable names the environment variable in which the names of the sockets come, as a JSON array.
const variable = "GATELODGE_HANDOVER"

// firstFile is the descriptor of the first of exec.Cmd.ExtraFiles.
const firstFile = 3

// Serving is what the new process writes.
const servingWord = "serving"

// Inheritance is what a process got from the one before. The zero value, and nil, is that of a process that nobody handed anything over to.
type Inheritance struct {
	files    []*os.File
	serving  *os.File // written to once
	released *os.File // read until its end
}

// Inherit takes over what was passed to this process; nil if nothing was. It can be called once in the life of a process.
func Inherit() (*Inheritance, error) {
	text, ok := os.LookupEnv(variable)
	if !ok {
		return nil, nil
	}
	if err := os.Unsetenv(variable); err != nil {
		return nil, err
	}
	var names []string
	if err := json.Unmarshal([]byte(text), &names); err != nil {
		return nil, fmt.Errorf("%s is no list of sockets; it is set by a process that hands its sockets over, and by nobody else: %w", variable, err)
	}
	i := &Inheritance{serving: file(0, "serving"), released: file(1, "released")}
	for n, name := range names {
		i.files = append(i.files, file(2+n, name))
	}
	return i, nil
}

// file is one of those that were passed; what this process starts does not get it.
func file(n int, name string) *os.File {
	syscall.CloseOnExec(firstFile + n)
	return os.NewFile(uintptr(firstFile+n), name)
}

// Files are the sockets, by the names that Start was given for them. Whoever takes them closes them.
func (i *Inheritance) Files() []*os.File {
	if i == nil {
		return nil
	}
	files := i.files
	i.files = nil
	return files
}

// Serving tells the process before that this one serves: it stops accepting.
func (i *Inheritance) Serving() error {
	if i == nil {
		return nil
	}
	_, err := i.serving.WriteString(servingWord)
	if err = errors.Join(err, i.serving.Close()); err != nil {
		return fmt.Errorf("tell the process before that this one serves: %w", err)
	}
	return nil
}

// Released returns when the process before reads no socket any more, or has died, or when ctx ends.
func (i *Inheritance) Released(ctx context.Context) {
	if i == nil {
		return
	}
	end := context.AfterFunc(ctx, func() { _ = i.released.Close() })
	defer end()
	_, _ = io.Copy(io.Discard, i.released)
	_ = i.released.Close()
}

// Successor is the process that has our sockets.
type Successor struct {
	// Pid is its process id.
	Pid int

	released *os.File
}

// Release tells it that nobody else reads the sockets any more.
func (s *Successor) Release() { _ = s.released.Close() }

// Socket is one to hand over.
type Socket struct {
	Name string
	File *os.File // a duplicate, which Start closes
}

// Start runs the command, which gets our standard output and error, with the sockets, and waits until it serves. If it fails, ends, or takes until ctx ends, Start ends it
// and returns an error: nothing has changed then.
func Start(ctx context.Context, path string, args []string, sockets []Socket) (*Successor, error) {
	cmd := exec.Command(path, args...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	names := []string{}
	defer func() {
		for _, s := range sockets {
			_ = s.File.Close()
		}
	}()
	serving, said, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer serving.Close()
	defer said.Close()
	released, release, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer released.Close()
	cmd.ExtraFiles = []*os.File{said, released}
	for _, s := range sockets {
		names = append(names, s.Name)
		cmd.ExtraFiles = append(cmd.ExtraFiles, s.File)
	}
	text, err := json.Marshal(names)
	if err != nil {
		return nil, err
	}
	cmd.Env = append(os.Environ(), variable+"="+string(text))
	if err := cmd.Start(); err != nil {
		_ = release.Close()
		return nil, fmt.Errorf("start the new process: %w", err)
	}
	_ = said.Close() // so that its end is the end of the pipe
	if err := await(ctx, serving); err != nil {
		_ = release.Close()
		_ = cmd.Process.Kill()
		return nil, fmt.Errorf("%w (%v)", err, cmd.Wait())
	}
	pid := cmd.Process.Pid
	_ = cmd.Process.Release() // it outlives us
	return &Successor{Pid: pid, released: release}, nil
}

// await reads until the new process has said that it serves.
func await(ctx context.Context, serving *os.File) error {
	stop := context.AfterFunc(ctx, func() { _ = serving.SetReadDeadline(time.Now()) })
	defer stop()
	word, err := io.ReadAll(serving)
	switch {
	case string(word) == servingWord:
		return nil
	case ctx.Err() != nil:
		return fmt.Errorf("the new process did not serve in time: %w", context.Cause(ctx))
	case err != nil:
		return fmt.Errorf("wait for the new process: %w", err)
	}
	return errors.New("the new process ended before it served; its own messages say why")
}
