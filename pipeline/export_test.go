package pipeline

// Chosen has f told that AutoLevel made its choice for a part.
func (p *Push) Chosen(f func(part int)) { p.chosen = f }
