package directory

// name is what an entity is looked up by besides its id. tenantID is empty for
// what belongs to no tenant.
type name struct{ tenantID, name string }

// table keeps the entities of one kind by id and by name. The entities are
// pointed to by both maps and are never changed in place: put replaces them,
// so that a copy made under the lock stays true to one moment.
type table[T any] struct {
	id     func(*T) string
	name   func(*T) name
	byID   map[string]*T
	byName map[name]*T
}

func newTable[T any](size int, id func(*T) string, named func(*T) name) table[T] {
	return table[T]{id: id, name: named, byID: make(map[string]*T, size), byName: make(map[name]*T, size)}
}

// put adds or replaces an entity.
func (t *table[T]) put(entity *T) {
	t.remove(t.id(entity))
	t.byID[t.id(entity)] = entity
	t.byName[t.name(entity)] = entity
}

// remove forgets an entity. Its name is left alone where another entity has
// taken it meanwhile.
func (t *table[T]) remove(id string) {
	old, ok := t.byID[id]
	if !ok {
		return
	}
	delete(t.byID, id)
	if key := t.name(old); t.byName[key] == old {
		delete(t.byName, key)
	}
}

func (t *table[T]) get(id string) (T, bool) { return copied(t.byID[id]) }
func (t *table[T]) find(n name) (T, bool)   { return copied(t.byName[n]) }

// copied gives the entity by value, so that no caller shares the table's own.
func copied[T any](entity *T) (T, bool) {
	if entity == nil {
		var none T
		return none, false
	}
	return *entity, true
}
