"""Decode, cut, blur and synthesise pictures, sound and video."""
