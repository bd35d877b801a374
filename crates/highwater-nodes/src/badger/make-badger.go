// make-badger writes Badger v4 directories that stand for stores of ev-node, and asks Badger itself
// what the height in each of them is. The tests of the reader in Rust read both.
//
// How it is run: with Go 1.19 or later and the module github.com/dgraph-io/badger/v4 v4.5.1, which is the
// version that ev-node 1.x builds with,
//
//	go run make-badger.go fixtures OUT   # makes the small directories that are kept as fixtures
//	go run make-badger.go many OUT N     # makes N larger ones with random settings and kills
//	go run make-badger.go lives OUT      # makes tests/fixtures/ev-node: one store in three lives
//
// Where no module proxy is in reach, GO111MODULE=off does, with the sources of badger v4.5.1, ristretto v2.1.0 and
// flatbuffers v24.12.23 in a GOPATH, and behind it /usr/share/gocode with Debian 12's packages of the other modules.
//
// Each directory gets a file EXPECTED: `height N`, `absent` or `error`, as Badger 4.5.1 answers on a copy of
// it. The fixture `mem` also gets CUTS and FLIPS: what Badger answers after its log is cut at a byte, or
// after a bit of a byte is flipped; one line `POSITION ANSWER` each.
//
// Each of the lives is the directory that a SIGKILL left; the next life goes on in it, and its Badger first makes a
// table of the log before. HEIGHTS has what Badger answers where the log ends earlier, with zeros behind that up to its
// full size, as Badger makes it: a line `POSITION ANSWER` for each transaction, and before it one with `torn`, for a
// position inside of that transaction, where a power cut may leave it.
//
// Files that Badger fills up with zeros beforehand are stored without most of these zeros. EXPECTED is asked
// of what is stored, so it also shows that Badger does not miss them.
//
// The process starts itself as a child that writes and then kills itself (or is killed) by SIGKILL,
// so that what a crash leaves behind is really left behind by one.
package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	badger "github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/options"
)

// heightKey is what ev-node's `/t` becomes under its prefix.
var heightKey = []byte("/0/t")

// plan is what a child does in one life.
type plan struct {
	Dir         string
	From, To    uint64 // The blocks to write.
	Bytes       int    // Of each header.
	Compression options.CompressionType
	MemTable    int64
	Table       int64
	Threshold   int64
	Key         []byte // For encryption.
	Delete      bool   // Deletes the height at the end.
	Managed     bool   // With timestamps of our own, out of order, and without marks of transactions.
	Settle      bool   // Waits until compaction has moved tables to two levels at least.
	Kill        bool   // Dies by SIGKILL at the end, else closes.
	Forever     bool   // Writes on until it is killed from outside.
	Clean       bool   // Flattens all levels before the end.
	Light       bool   // Writes only the header of a block and the height, and after every other block what is done with it.
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func settings(p plan) badger.Options {
	opt := badger.DefaultOptions(p.Dir).WithLogger(nil).WithDetectConflicts(false).
		WithCompression(p.Compression).WithMemTableSize(p.MemTable).WithBaseTableSize(p.Table).
		WithBaseLevelSize(2 * p.Table).WithLevelSizeMultiplier(2).WithValueThreshold(p.Threshold).
		WithValueLogFileSize(1 << 20).WithNumLevelZeroTables(2).WithNumLevelZeroTablesStall(6).
		WithIndexCacheSize(1 << 20).WithBlockCacheSize(1 << 20).WithMetricsEnabled(false).
		WithNumCompactors(2)
	if len(p.Key) > 0 {
		opt = opt.WithEncryptionKey(p.Key)
	}
	return opt
}

// block returns the entries of one block: text that compresses well beside bytes that don't.
func block(height uint64, size int) map[string][]byte {
	header := make([]byte, size)
	rand.New(rand.NewSource(int64(height))).Read(header[:size/3])
	copy(header[size/3:], bytes.Repeat([]byte("header of the chain "), size))
	hash := sha256.Sum256(header)
	n := strconv.FormatUint(height, 10)
	value := make([]byte, 8)
	binary.LittleEndian.PutUint64(value, height)
	return map[string][]byte{
		"/0/h/" + n:                       header,
		"/0/d/" + n:                       header[:size/8],
		"/0/c/" + n:                       hash[:],
		"/0/i/" + fmt.Sprintf("%X", hash): value,
		"/0/s/" + n:                       header[:size/4],
		string(heightKey):                 value,
	}
}

// light writes a block, and after every other one how far the data layer is, in a transaction of its own.
func light(db *badger.DB, p plan, height uint64) {
	all := block(height, p.Bytes)
	header := "/0/h/" + strconv.FormatUint(height, 10)
	batch := db.NewWriteBatch()
	must(batch.Set([]byte(header), all[header]))
	must(batch.Set(heightKey, all[string(heightKey)]))
	must(batch.Flush())
	if height%2 == 0 {
		included := func(txn *badger.Txn) error { return txn.Set([]byte("/0/m/d"), all[string(heightKey)]) }
		must(db.Update(included))
	}
}

func write(db *badger.DB, p plan, height uint64) {
	if p.Light {
		light(db, p, height)
		return
	}
	begin := db.NewWriteBatch
	if p.Managed {
		begin = db.NewManagedWriteBatch
	}
	batch := begin()
	for key, value := range block(height, p.Bytes) {
		if p.Managed {
			// Two versions each time, the older one last; of the height, it is the one before.
			must(batch.SetEntryAt(badger.NewEntry([]byte(key), value), 10*height))
			if earlier, has := block(height-1, p.Bytes)[key]; has && height > 1 {
				must(batch.SetEntryAt(badger.NewEntry([]byte(key), earlier), 10*height-5))
			}
		} else {
			must(batch.Set([]byte(key), value))
		}
	}
	must(batch.Flush())
}

func child(p plan) {
	open := badger.Open
	if p.Managed {
		open = badger.OpenManaged
	}
	db, err := open(settings(p))
	must(err)
	for height := p.From; height <= p.To || p.Forever; height++ {
		write(db, p, height)
	}
	if p.Delete {
		must(db.Update(func(txn *badger.Txn) error { return txn.Delete(heightKey) }))
	}
	if p.Clean {
		must(db.Flatten(2))
	}
	for i := 0; p.Settle && i < 200 && levels(db) < 2; i++ {
		time.Sleep(20 * time.Millisecond)
	}
	for i := 0; p.Light && i < 200 && len(logs(p.Dir)) > 1; i++ {
		time.Sleep(20 * time.Millisecond)
	}
	if p.Kill {
		must(syscall.Kill(os.Getpid(), syscall.SIGKILL))
		select {}
	}
	must(db.Close())
}

func levels(db *badger.DB) int {
	seen := map[int]bool{}
	for _, table := range db.Tables() {
		if table.Level > 0 {
			seen[table.Level] = true
		}
	}
	return len(seen)
}

func logs(dir string) []string {
	found, err := filepath.Glob(filepath.Join(dir, "*.mem"))
	must(err)
	return found
}

// live runs a child until it ends, or kills it after a while.
func live(p plan, after time.Duration) {
	text, err := json.Marshal(p)
	must(err)
	command := exec.Command(os.Args[0], "child", string(text))
	command.Stderr = os.Stderr
	must(command.Start())
	if p.Forever {
		time.Sleep(after)
		must(command.Process.Kill())
	}
	err = command.Wait()
	if err != nil && !p.Kill && !p.Forever {
		panic(err)
	}
}

// store copies a directory without what no reader needs: the lock, what Badger notes for itself of the
// value log, and zeros at the end of what it maps into memory. Some of these are left, for a zero may
// also be the last byte of an entry.
func store(from, to string) {
	must(os.MkdirAll(to, 0o755))
	files, err := os.ReadDir(from)
	must(err)
	for _, file := range files {
		name := file.Name()
		switch name {
		case "LOCK", "DISCARD", "EXPECTED", "CUTS", "FLIPS", "HEIGHTS":
			continue
		}
		data, err := os.ReadFile(filepath.Join(from, name))
		must(err)
		if strings.HasSuffix(name, ".mem") || strings.HasSuffix(name, ".vlog") {
			kept := len(bytes.TrimRight(data, "\x00")) + 40
			if kept < len(data) {
				data = data[:kept]
			}
		}
		must(os.WriteFile(filepath.Join(to, name), data, 0o644))
	}
}

// ask opens a copy of a directory, changed before that, and says what Badger answers.
func ask(dir string, p plan, change func(copied string)) (answer string) {
	copied, err := os.MkdirTemp("", "ask")
	must(err)
	defer os.RemoveAll(copied)
	store(dir, copied)
	if change != nil {
		change(copied)
	}
	defer func() {
		if recover() != nil {
			answer = "error"
		}
	}()
	p.Dir, p.Key = copied, nil
	open := badger.Open
	if p.Managed {
		open = badger.OpenManaged
	}
	db, err := open(settings(p))
	if err != nil {
		return "error"
	}
	defer db.Close()
	begin := db.NewTransaction
	if p.Managed {
		begin = func(update bool) *badger.Txn { return db.NewTransactionAt(1<<62, update) }
	}
	txn := begin(false)
	defer txn.Discard()
	item, err := txn.Get(heightKey)
	if errors.Is(err, badger.ErrKeyNotFound) {
		return "absent"
	}
	if err != nil {
		return "error"
	}
	value, err := item.ValueCopy(nil)
	if err != nil || len(value) != 8 {
		return "error"
	}
	return "height " + strconv.FormatUint(binary.LittleEndian.Uint64(value), 10)
}

// makeOne runs lives one after another in a directory of their own, and stores what they leave.
func makeOne(out, name string, after time.Duration, lives ...plan) plan {
	work, err := os.MkdirTemp("", "badger")
	must(err)
	defer os.RemoveAll(work)
	var last plan
	for _, p := range lives {
		p.Dir = work
		if p.Bytes == 0 {
			p.Bytes = 96
		}
		if p.MemTable == 0 {
			p.MemTable = 64 << 10
		}
		if p.Table == 0 {
			p.Table = 4 << 10
		}
		if p.Threshold == 0 {
			p.Threshold = 1 << 10
		}
		live(p, after)
		last = p
	}
	to := filepath.Join(out, name)
	must(os.RemoveAll(to))
	store(work, to)
	answer := ask(to, last, nil)
	must(os.WriteFile(filepath.Join(to, "EXPECTED"), []byte(answer+"\n"), 0o644))
	fmt.Println(name, answer)
	return last
}

// spoil asks what Badger makes of each way to spoil the log.
func spoil(dir, list string, p plan, each int, change func(data []byte, at int) []byte) {
	data, err := os.ReadFile(filepath.Join(dir, "00001.mem"))
	must(err)
	var lines strings.Builder
	for at := 0; at < len(data); at += each {
		answer := ask(dir, p, func(copied string) {
			spoilt := change(append([]byte{}, data...), at)
			must(os.WriteFile(filepath.Join(copied, "00001.mem"), spoilt, 0o644))
		})
		fmt.Fprintln(&lines, at, answer)
	}
	must(os.WriteFile(filepath.Join(dir, list), []byte(lines.String()), 0o644))
}

func fixtures(out string) {
	mem := makeOne(out, "mem", 0, plan{From: 1, To: 6, Kill: true})
	dir := filepath.Join(out, "mem")
	spoil(dir, "CUTS", mem, 7, func(data []byte, at int) []byte { return data[:at] })
	spoil(dir, "FLIPS", mem, 11, func(data []byte, at int) []byte {
		data[at] ^= 1 << (at % 8)
		return data
	})
	makeOne(out, "closed", 0, plan{From: 1, To: 12})
	makeOne(out, "both", 0, plan{From: 1, To: 8}, plan{From: 9, To: 11, Kill: true})
	for name, codec := range map[string]options.CompressionType{
		"levels-none": options.None, "levels-snappy": options.Snappy, "levels-zstd": options.ZSTD} {
		grow := plan{Bytes: 150, MemTable: 8 << 10, Table: 2 << 10, Threshold: 512, Compression: codec, Settle: true}
		first, second := grow, grow
		first.From, first.To = 1, 40
		second.From, second.To, second.Kill = 41, 60, true
		if codec == options.ZSTD {
			second.Kill = false
		}
		makeOne(out, name, 0, first, second)
	}
	makeOne(out, "codecs", 0,
		plan{From: 1, To: 20, Clean: true, Compression: options.None},
		plan{From: 21, To: 30, Compression: options.Snappy},
		plan{From: 31, To: 40, Compression: options.ZSTD})
	makeOne(out, "deleted-mem", 0, plan{From: 1, To: 3}, plan{From: 4, To: 4, Delete: true, Kill: true})
	makeOne(out, "deleted-table", 0, plan{From: 1, To: 3}, plan{From: 4, To: 4, Delete: true})
	makeOne(out, "pointer-mem", 0, plan{From: 1, To: 3, Threshold: 4, Kill: true})
	makeOne(out, "pointer-table", 0, plan{From: 1, To: 3, Threshold: 4})
	key := []byte("0123456789abcdef0123456789abcdef")
	makeOne(out, "encrypted-mem", 0, plan{From: 1, To: 3, Key: key, Kill: true})
	makeOne(out, "encrypted-table", 0, plan{From: 1, To: 3, Key: key})
	makeOne(out, "managed", 0, plan{From: 1, To: 3, Managed: true, Kill: true})
	makeOne(out, "empty", 0, plan{From: 1, To: 0})
}

// ends finds where the entries of a log end, and which of them end a transaction: only with those does anything count.
func ends(log []byte) (positions []int, whole []bool) {
	for at := 20; ; {
		entry := log[at:]
		begin, lengths := 2, [3]uint64{} // Of the key, of the value; when it expires.
		for i := range lengths {
			number, bytes := binary.Uvarint(entry[begin:])
			lengths[i] = number
			begin += bytes
		}
		if lengths[0] == 0 {
			return positions, whole
		}
		at += begin + int(lengths[0]+lengths[1]) + 4
		positions = append(positions, at)
		whole = append(whole, entry[0]&(1<<7) != 0)
	}
}

// heights asks Badger about each transaction of the only log, and about a place inside of each.
func heights(dir string, p plan) {
	found := logs(dir)
	if len(found) != 1 {
		panic(found)
	}
	log, err := os.ReadFile(found[0])
	must(err)
	var lines strings.Builder
	line := func(at int, note string) string {
		answer := ask(dir, p, func(copied string) {
			cut := filepath.Join(copied, filepath.Base(found[0]))
			must(os.Truncate(cut, int64(at)))
			must(os.Truncate(cut, 2*p.MemTable))
		})
		fmt.Fprintf(&lines, "%d %s%s\n", at, answer, note)
		return answer
	}
	last, random := 20, rand.New(rand.NewSource(int64(p.From)))
	before := line(last, "")
	positions, whole := ends(log)
	for i, at := range positions {
		if !whole[i] {
			continue
		}
		// Between two entries or inside of one. Without a checksum at least: it may end with zeros, as what follows.
		torn := last + 1 + random.Intn(at-last-4)
		if random.Intn(2) == 0 {
			torn = positions[i-1]
		}
		if answer := line(torn, " torn"); answer != before {
			panic(answer)
		}
		before, last = line(at, ""), at
	}
	must(os.WriteFile(filepath.Join(dir, "HEIGHTS"), []byte(lines.String()), 0o644))
}

// lives makes one store that grows over three lives, and stores it at the end of each.
func lives(out string) {
	work, err := os.MkdirTemp("", "badger")
	must(err)
	defer os.RemoveAll(work)
	upTo := []uint64{0, 8, 20, 900}
	for number := 1; number < len(upTo); number++ {
		p := plan{Dir: work, From: upTo[number-1] + 1, To: upTo[number], Bytes: 12, MemTable: 256 << 10,
			Table: 64 << 10, Threshold: 1 << 10, Compression: options.ZSTD, Light: true, Kill: true}
		live(p, 0)
		to := filepath.Join(out, strconv.Itoa(number))
		must(os.RemoveAll(to))
		store(work, to)
		heights(to, p)
	}
}

func many(out string, count int) {
	for i := 0; i < count; i++ {
		random := rand.New(rand.NewSource(int64(i)))
		p := plan{
			Bytes:       50 + random.Intn(600),
			MemTable:    int64(16<<10) << random.Intn(5),
			Table:       int64(4<<10) << random.Intn(4),
			Compression: options.CompressionType(random.Intn(3)),
			From:        1, To: uint64(20 + random.Intn(800)),
		}
		first, second := p, p
		first.Settle = random.Intn(2) == 0
		first.Kill = random.Intn(2) == 0
		second.From, second.To = p.To+1, p.To
		second.Compression = options.CompressionType(random.Intn(3))
		second.Forever = true
		lives := []plan{first, second}
		if random.Intn(4) == 0 {
			lives = lives[:1]
		}
		makeOne(out, fmt.Sprintf("%04d", i), time.Duration(50+random.Intn(400))*time.Millisecond, lives...)
	}
}

func main() {
	switch {
	case len(os.Args) == 3 && os.Args[1] == "child":
		var p plan
		must(json.Unmarshal([]byte(os.Args[2]), &p))
		child(p)
	case len(os.Args) == 3 && os.Args[1] == "fixtures":
		fixtures(os.Args[2])
	case len(os.Args) == 4 && os.Args[1] == "many":
		count, err := strconv.Atoi(os.Args[3])
		must(err)
		many(os.Args[2], count)
	case len(os.Args) == 3 && os.Args[1] == "lives":
		lives(os.Args[2])
	default:
		fmt.Fprintln(os.Stderr, "usage: make-badger fixtures OUT | many OUT N | lives OUT")
		os.Exit(2)
	}
}
