package proxy

import (
	"errors"
	"io"
	"io/fs"
	"mime"
	"net/http"
	"net/url"
	"os"
	"path"
	"strconv"
	"strings"
	"syscall"
)

// serveFiles answers with a file below the folder: whole or in ranges, with ETag and Last-Modified and what depends on them (RFC 9110 §13, §14). A folder is its
// index.html; nothing is listed. Names that begin with a dot are not there, but for .well-known (RFC 8615), nor is what symbolic links outside of the folder
// point to. The folder is opened for every request, so that a release can be put in its place by renaming or by a symbolic link.
func (x *exchange) serveFiles(a *action) {
	if x.r.Method != http.MethodGet && x.r.Method != http.MethodHead {
		x.out.Header()["Allow"] = []string{"GET, HEAD"}
		x.refuse(&fault{http.StatusMethodNotAllowed, "files are only read"})
		return
	}
	name, ok := x.fileName()
	if !ok {
		x.refuse(&fault{http.StatusNotFound, "no name of a file"})
		return
	}
	f, info, err := openBelow(a.files, name)
	if errors.Is(err, errFolder) {
		x.toFolder()
		return
	}
	if err != nil && a.fallback != "" && fileFault(err).status == http.StatusNotFound {
		f, info, err = openBelow(a.files, a.fallback)
	}
	if err != nil {
		x.refuse(fileFault(err))
		return
	}
	defer func() { _ = f.Close() }()
	h := x.out.Header()
	h["Etag"] = []string{etagOf(info)}
	h["X-Content-Type-Options"] = []string{"nosniff"}
	h["Content-Type"] = []string{typeOf(info.Name())}
	keepRange(x.r)
	http.ServeContent(&pacedWriter{x.out, x.watchWrites()}, x.r, "", info.ModTime(), f)
}

// keepRange leaves the field Range to http.ServeContent only where it means something. RFC 9110 §14.2: "A server MUST ignore a Range header field received with a
// request method that is unrecognized or for which range handling is not defined", which is all but GET, and "MUST ignore" one in a unit that it does not understand.
func keepRange(r *http.Request) {
	unit, ranges, _ := strings.Cut(r.Header.Get("Range"), "=")
	if r.Method == http.MethodGet && strings.EqualFold(unit, "bytes") {
		r.Header["Range"] = []string{"bytes=" + ranges}
	} else {
		delete(r.Header, "Range")
	}
}

// fileName is the name below the folder with "/" between, without escapes. A name that ends with a slash is a folder's. ok is false for what is no name of
// a file that we serve.
func (x *exchange) fileName() (name string, ok bool) {
	rest := x.rest()
	if x.matched != nil && !x.matched.Below() {
		rest = x.path[strings.LastIndexByte(x.path, '/')+1:]
	}
	if strings.Contains(rest, "%2F") {
		return "", false
	}
	name, err := url.PathUnescape(rest)
	if err != nil {
		return "", false
	}
	segments := strings.Split(name, "/")
	for i, s := range segments {
		if s == "" && i < len(segments)-1 || strings.HasPrefix(s, ".") && s != ".well-known" {
			return "", false
		}
	}
	if name == "" && strings.HasSuffix(x.path, "/") {
		return "./", true // the folder itself
	}
	return name, true
}

var (
	errFolder  = errors.New("a folder, asked for without the slash at its end")
	errNotFile = errors.New("neither a file nor a folder")
)

// openBelow opens a regular file below dir, or the index.html of a folder if name ends with a slash.
func openBelow(dir, name string) (_ *os.File, _ fs.FileInfo, err error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = root.Close() }()
	folder := strings.HasSuffix(name, "/")
	if folder {
		name += "index.html"
	} else if name == "" {
		return nil, nil, errFolder
	}
	// A FIFO would make us wait for whoever writes to it.
	f, err := root.OpenFile(path.Clean(name), os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, err
	}
	info, err := f.Stat()
	switch {
	case err != nil:
	case info.Mode().IsRegular():
		return f, info, nil
	case info.IsDir() && !folder:
		err = errFolder
	default:
		err = errNotFile
	}
	_ = f.Close()
	return nil, nil, err
}

// fileFault tells a client no more than that there is no such file, unless it is our fault.
func fileFault(err error) *fault {
	if errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) || errors.Is(err, syscall.EIO) || errors.Is(err, syscall.ENOMEM) {
		return &fault{http.StatusInternalServerError, err.Error()}
	}
	return &fault{http.StatusNotFound, err.Error()}
}

// toFolder sends the client to the address at which relative links of the folder's index work.
func (x *exchange) toFolder() {
	location := localOnce(x.path + "/")
	if x.r.URL.RawQuery != "" {
		location += "?" + x.r.URL.RawQuery
	}
	x.out.Header()["Location"] = []string{location}
	x.answer(http.StatusTemporaryRedirect)
}

// etagOf is a strong validator (RFC 9110 §8.8.1) as far as the file system's times go: a file that changes gets another time or size.
func etagOf(info fs.FileInfo) string {
	return `"` + strconv.FormatInt(info.ModTime().UnixNano(), 36) + "-" + strconv.FormatInt(info.Size(), 36) + `"`
}

// types are those that package mime does not know by itself, so that a file has the same type on every machine.
var types = map[string]string{
	".ico": "image/x-icon", ".map": "application/json", ".md": "text/markdown; charset=utf-8", ".mp3": "audio/mpeg", ".mp4": "video/mp4", ".otf": "font/otf",
	".ttf": "font/ttf", ".txt": "text/plain; charset=utf-8", ".webm": "video/webm", ".webmanifest": "application/manifest+json", ".woff": "font/woff",
	".woff2": "font/woff2", ".zip": "application/zip", ".gz": "application/gzip", ".csv": "text/csv; charset=utf-8",
}

// typeOf goes by the name alone: to guess by the content would make a page of a file that somebody uploaded as something else.
func typeOf(name string) string {
	ext := strings.ToLower(path.Ext(name))
	if t, ok := types[ext]; ok {
		return t
	}
	if t := mime.TypeByExtension(ext); t != "" {
		return t
	}
	return "application/octet-stream"
}

// pacedWriter ends an answer whose client takes nothing (see watchdog).
type pacedWriter struct {
	http.ResponseWriter
	watch *watchdog
}

func (w *pacedWriter) Write(p []byte) (int, error) {
	w.watch.begin()
	defer w.watch.stop()
	return w.ResponseWriter.Write(p)
}

// ReadFrom is what io.Copy looks for: without it each answer would have a buffer of its own.
func (w *pacedWriter) ReadFrom(src io.Reader) (int64, error) {
	buf := buffers.Get().(*[64 << 10]byte)
	defer buffers.Put(buf)
	return io.CopyBuffer(struct{ io.Writer }{w}, src, buf[:])
}
