"""Of gunicorn, the settings that all of its versions either know or pass over."""

wsgi_app = "gunicorn_app:application"
workers = 3
control_socket_disable = True
