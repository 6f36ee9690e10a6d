"""x"""
def page(): return "<p>soon</p>"
