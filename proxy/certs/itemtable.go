package certs

import "hash/maphash"

const (
	itemBlock = 512 // items of 128 bytes
	itemParts = 64  // of the table, which grow by themselves: none takes long at a million names
)

// itemID is the number of an item in an itemTable, as long as the item is there. Zero is none.
type itemID int32

// itemTable holds an item for each name. The items lie in blocks and refer to each other by number, so that a million of them are not a million pointers, in a map
// and in each calendar, which the garbage collector has to follow.
type itemTable struct {
	seed   maphash.Seed
	parts  [itemParts]itemPart
	blocks []*[itemBlock]packedItem
	free   itemID // the first that is not in use; the others are its chain
	count  int
}

// itemPart has the names whose hash begins alike.
type itemPart struct {
	chains []itemID // the first of each, by hash. Their number is a power of two.
	count  int
}

func newItemTable() *itemTable { return &itemTable{seed: maphash.MakeSeed()} }

// at returns the item. It lies there until it is removed.
func (t *itemTable) at(id itemID) *packedItem {
	return &t.blocks[(id-1)/itemBlock][(id-1)%itemBlock]
}

// find returns the name's item; zero if there is none.
func (t *itemTable) find(name string) itemID {
	id := *t.chain(name)
	for id != 0 && t.at(id).name() != name {
		id = t.at(id).chain
	}
	return id
}

// chain is where the chain begins that the name belongs to.
func (t *itemTable) chain(name string) *itemID {
	p, hash := t.part(name)
	if p.chains == nil {
		p.chains = make([]itemID, 1)
	}
	return &p.chains[hash&uint64(len(p.chains)-1)]
}

func (t *itemTable) part(name string) (p *itemPart, hash uint64) {
	hash = maphash.String(t.seed, name)
	return &t.parts[hash>>32%itemParts], hash
}

// add makes an item for a name that has none.
func (t *itemTable) add(name string) itemID {
	p, _ := t.part(name)
	if p.count++; p.count > len(p.chains) {
		t.grow(p)
	}
	if t.free == 0 {
		t.makeBlock()
	}
	id := t.free
	t.free = t.at(id).chain
	*t.at(id) = newPackedItem(name)
	t.push(id)
	t.count++
	return id
}

// push makes the item the first of its chain.
func (t *itemTable) push(id itemID) {
	it := t.at(id)
	first := t.chain(it.name())
	it.chain, *first = *first, id
}

// grow doubles the chains of a part.
func (t *itemTable) grow(p *itemPart) {
	old := p.chains
	p.chains = make([]itemID, max(2*len(old), 1))
	for _, id := range old {
		for id != 0 {
			next := t.at(id).chain
			t.push(id)
			id = next
		}
	}
}

func (t *itemTable) makeBlock() {
	t.blocks = append(t.blocks, new([itemBlock]packedItem))
	for i := range itemBlock {
		id := itemID(len(t.blocks)*itemBlock - i)
		t.at(id).chain, t.free = t.free, id
	}
}

// remove takes the item out. Its number will be that of another one.
func (t *itemTable) remove(id itemID) {
	it := t.at(id)
	link := t.chain(it.name())
	for *link != id {
		link = &t.at(*link).chain
	}
	*link = it.chain
	p, _ := t.part(it.name())
	p.count--
	t.count--
	*it = packedItem{chain: t.free}
	t.free = id
}

// each calls f for every item.
func (t *itemTable) each(f func(itemID, *packedItem)) {
	for b, block := range t.blocks {
		for i := range block {
			if it := &block[i]; it.nameLen > 0 {
				f(itemID(b*itemBlock+i+1), it)
			}
		}
	}
}
