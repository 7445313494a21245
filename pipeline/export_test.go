package pipeline

// Choosing has f called before AutoLevel's choice for each part, and what f returns after it.
func (p *Push) Choosing(f func(part int) (chosen func())) { p.choosing = f }
