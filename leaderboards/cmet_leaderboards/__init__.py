"""Result rows, statistics over them, and the boards rendered from them."""
