"""The tests of ckptkit."""
