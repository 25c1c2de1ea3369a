defmodule Tiebeam.Services.Filter do
  @moduledoc false
  # Which services somebody wants: checked where it is given, applied here and in the server.

  alias Tiebeam.{Leadership, Registry, Service}

  @defaults [name: nil, tag: [], meta: %{}, status: :alive, scope: :services]

  # `name` is `:any` or `{:name, name}`: `nil` is a name.
  defstruct name: :any, tags: [], meta: %{}, status: :alive, scope: :services

  @type t :: %__MODULE__{
          name: :any | {:name, Registry.name()},
          tags: [Registry.name()],
          meta: map,
          status: :alive | :suspect | :any,
          scope: Registry.scope()
        }

  @spec new!(keyword) :: t
  def new!(options) do
    %{tag: tag, meta: meta, status: status, scope: scope} = Leadership.options!(options, @defaults)
    unless is_map(meta), do: refuse(:meta, meta)
    unless status in [:alive, :suspect, :any], do: refuse(:status, status)
    unless is_atom(scope), do: refuse(:scope, scope)

    name = with {:ok, name} <- Keyword.fetch(options, :name), do: {:name, name}, else: (:error -> :any)
    %__MODULE__{name: name, tags: List.wrap(tag), meta: meta, status: status, scope: scope}
  end

  @doc "Whether a service is one of these. Its scope is not looked at."
  @spec passes?(t, Service.t() | nil) :: boolean
  def passes?(_filter, nil), do: false

  def passes?(filter, service) do
    filter.name in [:any, {:name, service.name}] and
      filter.status in [:any, service.status] and
      Enum.all?(filter.tags, &Registry.tag?(service.tags, &1)) and
      has?(service.meta, filter.meta)
  end

  defp has?(_meta, wanted) when wanted == %{}, do: true

  defp has?(%{} = meta, wanted) do
    Enum.all?(wanted, fn {key, value} -> is_map_key(meta, key) and :erlang.map_get(key, meta) === value end)
  end

  defp has?(_meta, _wanted), do: false

  defp refuse(key, value),
    do: raise(ArgumentError, "the option #{inspect(key)} cannot be #{inspect(value)}")
end
