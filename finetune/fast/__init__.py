"""An encoder layer and its dropout as compiled loops: speed only, the same numbers."""
