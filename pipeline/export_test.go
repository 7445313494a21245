package pipeline

// Choosing has f called before AutoLevel's choice for each part, and what f returns after it.
func (p *Push) Choosing(f func(part int) (chosen func())) { p.choosing = f }

// Tables is what each thread's encoders may take beyond what the engine counts, in bytes.
func (p *Push) Tables() int64 { return p.tables() }

// EngineMemory is what is left for the engine, in bytes.
const EngineMemory = engineMemory
