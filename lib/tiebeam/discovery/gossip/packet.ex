defmodule Tiebeam.Discovery.Gossip.Packet do
  @moduledoc false
  # The packets of libcluster's gossip, version 3.5. Pure: the initialisation vector is an argument, and names are strings,
  # because what others send makes no atoms.
  #
  #     heartbeat   "heartbeat::" term        the term is %{node: name} in the external term format
  #     encrypted   iv:16 ciphertext          AES-256-CBC of a heartbeat with PKCS #7 padding; the key is SHA-256(secret)
  #
  # Nothing authenticates a packet: whoever can send one names a node, and the handshake of the connection that follows
  # decides whether it belongs here. The secret keeps clusters apart.

  alias Tiebeam.Discovery.Name

  @type key :: <<_::256>>

  # Longest packet that is read. A heartbeat has 11 bytes, 12 of the map, and a name of at most 255 characters.
  @max 1024
  @spec max() :: pos_integer
  def max, do: @max

  @prelude "heartbeat::"
  @block 16

  @spec key(binary) :: key
  def key(secret), do: :crypto.hash(:sha256, secret)

  @doc """
  A heartbeat of a node, encrypted if there is a key.

      iex> packet = Tiebeam.Discovery.Gossip.Packet.write("a@h")
      iex> Tiebeam.Discovery.Gossip.Packet.read(packet)
      {:ok, "a@h"}

      iex> key = Tiebeam.Discovery.Gossip.Packet.key("somepassword")
      iex> packet = Tiebeam.Discovery.Gossip.Packet.write("a@h", key, <<0::128>>)
      iex> {byte_size(packet), Tiebeam.Discovery.Gossip.Packet.read(packet, key), Tiebeam.Discovery.Gossip.Packet.read(packet)}
      {48, {:ok, "a@h"}, :error}
  """
  @spec write(String.t()) :: binary
  def write(name) do
    # As OTP 26 and later write it; earlier releases write atoms in Latin-1, and read both.
    @prelude <> <<131, 116, 1::32, 119, 4, "node", 119, byte_size(name), name::binary>>
  end

  @spec write(String.t(), key | nil, binary) :: binary
  def write(name, nil, _iv), do: write(name)

  def write(name, key, iv) when byte_size(iv) == @block do
    plain = write(name)
    padding = @block - rem(byte_size(plain), @block)
    padded = plain <> :binary.copy(<<padding>>, padding)
    iv <> :crypto.crypto_one_time(:aes_256_cbc, key, iv, padded, true)
  end

  @doc "The node that a packet names."
  @spec read(binary, key | nil) :: {:ok, String.t()} | :error
  def read(packet, key \\ nil)
  def read(packet, _key) when byte_size(packet) > @max, do: :error
  def read(packet, nil), do: heartbeat(packet)

  def read(<<iv::binary-size(@block), encrypted::binary>>, key)
      when encrypted != "" and rem(byte_size(encrypted), @block) == 0 do
    padded = :crypto.crypto_one_time(:aes_256_cbc, key, iv, encrypted, false)
    padding = :binary.last(padded)
    size = byte_size(padded) - padding

    with true <- padding in 1..@block,
         <<plain::binary-size(size), rest::binary>> <- padded,
         true <- rest == :binary.copy(<<padding>>, padding) do
      heartbeat(plain)
    else
      _other -> :error
    end
  end

  def read(_packet, _key), do: :error

  # Not by `:erlang.binary_to_term/2`: it makes atoms, or refuses those that are not there yet, and it inflates.
  defp heartbeat(<<@prelude, 131, 116, 1::32, rest::binary>>) do
    with {"node", rest} <- atom(rest),
         {name, ""} <- atom(rest),
         do: Name.parse(name),
         else: (_other -> :error)
  end

  defp heartbeat(_plain), do: :error

  # ATOM_EXT, ATOM_UTF8_EXT, SMALL_ATOM_EXT, SMALL_ATOM_UTF8_EXT. In what names a node the encodings are the same.
  defp atom(<<tag, size::16, text::binary-size(size), rest::binary>>) when tag in [100, 118], do: {text, rest}
  defp atom(<<tag, size, text::binary-size(size), rest::binary>>) when tag in [115, 119], do: {text, rest}
  defp atom(_other), do: :error
end
