"""Ports that are given out."""

import socket

from deploy.local.parts.ports import LOOPBACK, free_port, is_free


def test_no_port_is_given_out_twice_even_before_its_server_has_started() -> None:
    ports = [free_port() for _ in range(50)]
    assert len(set(ports)) == 50


def test_a_port_lies_below_those_the_system_gives_to_outgoing_connections() -> None:
    assert 1024 < free_port() < 32_768


def test_a_port_with_a_listener_is_not_free() -> None:
    with socket.create_server((LOOPBACK, 0)) as server:
        port = server.getsockname()[1]
        assert not is_free(port)
    assert is_free(port)
