package certs

// calendar is a heap of items: the one whose turn comes first is on top. Each item knows where it stands in it, so that any can be moved or taken out. The planner's
// mutex guards it.
type calendar struct {
	items *itemTable
	ids   []itemID
	turn  func(*packedItem) uint64 // who has less comes first
	place func(*packedItem) *int32 // where the item stands; -1 if it does not
}

// first returns the item on top; nil if there is none.
func (c *calendar) first() *packedItem {
	if len(c.ids) == 0 {
		return nil
	}
	return c.items.at(c.ids[0])
}

// put enters the item, or brings it to where its turn is now.
func (c *calendar) put(id itemID) {
	at := c.place(c.items.at(id))
	if *at < 0 {
		*at = int32(len(c.ids))
		c.ids = append(c.ids, id)
	}
	c.move(int(*at))
}

// remove takes the item out.
func (c *calendar) remove(id itemID) {
	at := c.place(c.items.at(id))
	hole, last := int(*at), len(c.ids)-1
	c.swap(hole, last)
	c.ids = c.ids[:last]
	*at = -1
	if hole < last {
		c.move(hole)
	}
}

// pop takes out the item on top, which there must be.
func (c *calendar) pop() itemID {
	id := c.ids[0]
	c.remove(id)
	return id
}

// move brings what stands there up or down to its place.
func (c *calendar) move(i int) {
	for i > 0 && c.before(i, (i-1)/2) {
		c.swap(i, (i-1)/2)
		i = (i - 1) / 2
	}
	for {
		child := 2*i + 1
		if right := child + 1; right < len(c.ids) && c.before(right, child) {
			child = right
		}
		if child >= len(c.ids) || !c.before(child, i) {
			return
		}
		c.swap(i, child)
		i = child
	}
}

func (c *calendar) before(i, j int) bool {
	return c.turn(c.items.at(c.ids[i])) < c.turn(c.items.at(c.ids[j]))
}

func (c *calendar) swap(i, j int) {
	c.ids[i], c.ids[j] = c.ids[j], c.ids[i]
	*c.place(c.items.at(c.ids[i])), *c.place(c.items.at(c.ids[j])) = int32(i), int32(j)
}
