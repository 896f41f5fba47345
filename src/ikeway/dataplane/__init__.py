"""Where child SAs live: userspace (TUN and batches), kernel (XFRM), windows."""
